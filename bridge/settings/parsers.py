"""How a setting is written in an environment variable: each maker returns a validator for one kind of value.

A validator takes the variable's text and raises ValueError with everything but the variable's name: what was
given and what is expected. Secrets have validators of their own, in `settings`, that do not quote. Each validator also
carries a JSON schema of what it accepts, for programs that write such variables (`Settings.model_json_schema()`): the
chart's schema is made from it. `x-unit` marks a quantity that may be written with units, `seconds` or `bytes`, and
`x-non-ascii-bytes` a name that may have no more than so many where it is not all ASCII.
"""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from bridge.settings.files import open_file

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SHORTSTR_BYTES = 255
"""AMQP 0-9-1, 4.2.5.3: names and keys are short strings."""

MAX_NON_ASCII_NAME_BYTES = 120
"""Of a queue or an exchange; see `queue_fault`."""
NON_ASCII = {"x-non-ascii-bytes": MAX_NON_ASCII_NAME_BYTES}
MAX_CODEC_CHARACTERS = 127
"""pamqp 4.0 encodes no longer name of an exchange or a virtual host."""

HOST_NAME = r"(?:[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)*|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*)"
"""A name (in its ASCII form) or an address."""

MAX_HOST_CHARACTERS = 253
"""RFC 1035, 2.3.4, without the octets of length and the root's dot."""

DURATION_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
SIZE_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{binary}B": (1024 if binary else 1000) ** power
    for power, prefix in enumerate("kMGT", 1)
    for binary in ("", "i")
}
SIZE_NAMES = {unit.lower(): factor for unit, factor in SIZE_UNITS.items()}
BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


NOT_YET = "not_yet"
"""The type of what pydantic is told where the value may be right and a file is not as it should be, now."""
LASTING_ERRNOS = {errno.EISDIR, errno.EINVAL, errno.ENAMETOOLONG}
"""Why a file cannot be opened, now or later."""


def not_yet(text: str) -> PydanticCustomError:
    """Return the complaint about a file that may come, or be written to its end, by itself."""
    return PydanticCustomError(NOT_YET, "{text}", {"text": text})


def validator(parse: Callable[[str], Any], **schema: object) -> PlainValidator:
    """Return a validator that parses a variable's text, with the JSON schema of the values that it accepts."""
    return PlainValidator(parse, json_schema_input_type=Annotated[Any, WithJsonSchema(schema)])


def quoted(value: object) -> str:
    """Return a text, or another value of JSON, as an error message shows it: on one line, and not without end."""
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 80 else f'{shown[:76]}..."'  # noqa: PLR2004 - a line on a terminal


def is_utf8(text: str) -> bool:
    """Whether the text can be written in UTF-8: of bytes that were none, Python keeps lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def whole(minimum: int, maximum: int, *, or_zero: bool = False, hint: str = "") -> PlainValidator:
    """Whole numbers in a range; `or_zero` where 0 switches something off."""
    expected = f"{'0, or ' if or_zero else ''}{minimum} to {maximum}{hint}"

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text.strip()):
            raise ValueError(f"{quoted(text)} is not a whole number; expected {expected}")
        value = int(text)
        if not (minimum <= value <= maximum or (or_zero and value == 0)):
            raise ValueError(f"{quoted(text)} is out of range; expected {expected}")
        return value

    accepted = {"minimum": minimum, "maximum": maximum}
    if or_zero:
        return validator(parse, type="integer", anyOf=[{"const": 0}, accepted])
    return validator(parse, type="integer", **accepted)


def duration(minimum: float, maximum: float, *, hint: str = "") -> PlainValidator:
    """Seconds, in a range of seconds: `30`, `0.5`, `500ms`, `30s`, `5m`, `1h`."""
    expected = f"{minimum:g} to {maximum:g} seconds{hint}"

    def parse(text: str) -> float:
        match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) *(ms|s|m|h|)", text.strip())
        if match is None:
            raise ValueError(f"{quoted(text)} is not a duration such as 30, 30s, 5m or 500ms; expected {expected}")
        value = float(match[1]) * DURATION_UNITS[match[2]]
        if not minimum <= value <= maximum:
            raise ValueError(f"{quoted(text)} is out of range; expected {expected}")
        return value

    return validator(
        parse,
        type=["number", "string"],
        minimum=minimum,
        maximum=maximum,
        pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})? *(ms|s|m|h)?$",
        **{"x-unit": "seconds"},
    )


def size(minimum: int, maximum: int) -> PlainValidator:
    """Bytes, in a range of bytes: `1048576`, `64MiB` (1024s), `64MB` (1000s)."""
    expected = f"{minimum} to {maximum} bytes"

    def parse(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) *([A-Za-z]*)", text.strip())
        factor = SIZE_NAMES.get(match[2].lower()) if match else None
        if match is None or factor is None:
            raise ValueError(f"{quoted(text)} is not a size such as 67108864, 64MiB or 64MB; expected {expected}")
        value = int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor
        if not minimum <= value <= maximum:
            raise ValueError(f"{quoted(text)} is out of range; expected {expected}")
        return value

    return validator(
        parse,
        type=["integer", "string"],
        minimum=minimum,
        maximum=maximum,
        pattern=r"^[0-9]{1,18}(\.[0-9]{1,9})? *(([kKmMgGtT][iI]?)?[bB])?$",
        **{"x-unit": "bytes"},
    )


def boolean() -> PlainValidator:
    """Yes or no, in the usual words."""

    def parse(text: str) -> bool:
        try:
            return BOOLEANS[text.strip().lower()]
        except KeyError:
            raise ValueError(f"{quoted(text)} is neither true nor false; expected true or false") from None

    return validator(parse, type="boolean")


def choice(*words: str) -> PlainValidator:
    """One of some words, in any case."""

    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in words:
            raise ValueError(f"{quoted(text)} is not known; expected one of {', '.join(words)}")
        return word

    return validator(parse, enum=list(words))


def short_string(what: str) -> PlainValidator:
    """A name or key as AMQP limits it."""
    return _short(lambda text: short_string_fault(text, what), maxLength=MAX_SHORTSTR_BYTES)


def queue_name() -> PlainValidator:
    """The name of a queue."""
    return _short(queue_fault, maxLength=MAX_SHORTSTR_BYTES, **NON_ASCII)


def exchange_name() -> PlainValidator:
    """The name of an exchange."""
    return _short(exchange_fault, maxLength=MAX_CODEC_CHARACTERS, **NON_ASCII)


def _short(fault_of: Callable[[str], str], **schema: int) -> PlainValidator:
    def parse(text: str) -> str:
        if fault := fault_of(text):
            raise ValueError(f"{quoted(text)} {fault}")
        return text

    return validator(parse, type="string", **schema)


def short_string_fault(text: str, what: str) -> str:
    """Return why a text is no short string, with `what` is expected; empty where it is one."""
    length = len(text.encode())
    return "" if length <= MAX_SHORTSTR_BYTES else f"is {length} bytes long; expected {what} of at most 255 bytes"


def queue_fault(name: str) -> str:
    """Return why a queue or an exchange may not have this name; empty where it may.

    A refusal of RabbitMQ repeats the name. It cuts its text at 255 characters, where AMQP allows 255 bytes, and cannot
    write what has more bytes (seen with 3.10 and 4.3: 124 bytes of name work, 132 do not).
    """
    length = len(name.encode())
    if name.isascii() or length <= MAX_NON_ASCII_NAME_BYTES:
        return short_string_fault(name, "a name")
    return (
        f"is {length} bytes long and not in ASCII alone; expected at most {MAX_NON_ASCII_NAME_BYTES} bytes then, as "
        "RabbitMQ ends the connection with an error of its own where it refuses a longer one"
    )


def exchange_fault(name: str) -> str:
    """As `queue_fault`, for an exchange."""
    if len(name) <= MAX_CODEC_CHARACTERS:
        return queue_fault(name)
    return f"has {len(name)} characters; expected at most {MAX_CODEC_CHARACTERS}, as the client library sends no more"


def host_name() -> PlainValidator:
    """A host name or an address, as certificates have it."""

    def parse(text: str) -> str:
        name = text.strip().removesuffix(".")
        if not re.fullmatch(HOST_NAME, name):
            raise ValueError(f"{quoted(text)} is not a host name; expected one as in the certificate, without a port")
        if fault := host_fault(name):
            raise ValueError(f"{quoted(text)} is {fault}")
        return name

    return validator(parse, type="string", pattern=rf"^\s*{HOST_NAME}\.?\s*$")


def host_fault(host: str) -> str:
    """Return why a host can be neither looked up nor asked for by TLS; empty where it can.

    Python encodes it by its codec `idna` for both, and fails each time with a `UnicodeError`.
    """
    try:
        length = len(host.encode("idna").removesuffix(b"."))
    except UnicodeError:
        length = MAX_HOST_CHARACTERS + 1
    if length <= MAX_HOST_CHARACTERS:
        return ""
    return f"a host name that cannot exist; expected 1 to 63 characters from dot to dot, {MAX_HOST_CHARACTERS} in all"


def listening_address() -> PlainValidator:
    """An address, or a name that stands for one."""

    def parse(text: str) -> str:
        if fault := host_fault(text):
            raise ValueError(f"{quoted(text)} is {fault}")
        return text

    return validator(parse, type="string", maxLength=MAX_HOST_CHARACTERS + 1)


def host_names() -> PlainValidator:
    """Host names, comma-separated, in lower case."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name.strip().removesuffix(".").lower() for name in text.split(",") if name.strip())
        for name in names:
            if not re.fullmatch(HOST_NAME, name):
                raise ValueError(f"{quoted(name)} is not a host name; expected names, comma-separated, without ports")
        return names

    return validator(parse, type="string", pattern=rf"^\s*{HOST_NAME}\.?\s*(,\s*{HOST_NAME}\.?\s*)*$")


def http_url() -> PlainValidator:
    """A URL of `https` or `http`, without a login."""

    def parse(text: str) -> str:
        # It is not quoted: a secret may stand in it that does not belong there.
        expected = "expected https://host/path, or http:// where nobody listens on the way"
        url = text.strip()
        if re.search(r"[^!-~]", url):
            raise ValueError(f"has spaces, or characters that a URL does not have; {expected}")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(f"is not a valid URL; {expected}") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
            raise ValueError(f"is not a URL of a server; {expected}")
        if "@" in url or "#" in url:  # in a path, too: a password with a "/" would go there, and the user be the host
            raise ValueError(
                f'holds a login, an "@" or a "#"; {expected}, the login in variables of its own, and an "@" of the '
                "path written as %40"
            )
        if fault := host_fault(parts.hostname):
            raise ValueError(f"has {fault}")
        return url

    return validator(parse, type="string", pattern=r"^\s*https?://[^\s/@#]+(/[^\s@#]*)?\s*$")


def scope() -> PlainValidator:
    """What a token is to grant (RFC 6749, 3.3)."""

    def parse(text: str) -> str:
        found = " ".join(text.split())
        if not re.fullmatch(r"[!#-\[\]-~ ]*", found):
            raise ValueError(
                f"{quoted(text)} has characters that no scope has; expected words of ASCII, separated by spaces"
            )
        return found

    return validator(parse, type="string", pattern=r"^[!#-\[\]-~\s]*$")


def readable_file(check: Callable[[Path], str] | None = None) -> PlainValidator:
    """Return the path of a file that can be read, and that `check` has nothing against, of which it returns a sentence.

    What mounting or rotating the file may mend is reported as `not_yet`.
    """

    def parse(text: str) -> Path:
        path = Path(text)
        try:
            with open_file(path) as file:
                file.read(1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            # A value that is no path may be the secret itself, in the wrong variable; one in Base64 may have a slash.
            shown = quoted(text) if text.startswith(("/", "./", "../")) else "this file"
            problem = f"{shown} cannot be read ({reason}); expected the path of a readable file"
            if "/" in text and isinstance(error, OSError) and error.errno not in LASTING_ERRNOS:
                raise not_yet(problem) from None
            raise ValueError(problem) from None
        if check is not None and (fault := check(path)):
            raise not_yet(f"{quoted(text)} {fault}")
        return path

    return validator(parse, type="string")
