"""Writes `config/bridge.env` from the settings: `python -m tests.programs.bridge_env > config/bridge.env`."""

from __future__ import annotations

import sys
import textwrap

from bridge.settings.options import Option, options

HEADER = """\
# The settings of amqp-bridge, each with its default: for `docker run --env-file` or as a systemd EnvironmentFile.
# Durations: 30, 30s, 5m, 500ms. Sizes: 67108864, 64MiB, 64MB. Several URLs: comma-separated. In a URL, special
# characters of user and password are percent-encoded: a comma is %2C, a slash %2F, an @ %40. What is not set, or set
# to nothing, has its default; only QUARANTINE_QUEUE may be set to nothing.
"""
SECTIONS = {
    "BRIDGE_SOURCE_URL": "The source",
    "BRIDGE_DESTINATION_URL": "The destination",
    "BRIDGE_MAX_IN_FLIGHT_BYTES": "Limits",
    "BRIDGE_QUARANTINE_QUEUE": "What becomes of messages",
    "BRIDGE_HTTP_HOST": "HTTP and log",
}
EXAMPLES = {
    "BRIDGE_SOURCE_URL": "amqp://bridge:change-me@source.example:5672/",
    "BRIDGE_SOURCE_QUEUE": "orders",
    "BRIDGE_DESTINATION_URL": "amqp://bridge:change-me@destination.example:5672/",
    "BRIDGE_DESTINATION_QUEUE": "orders",
}
"""What everybody has to set: the only lines that are not commented out."""


def _entry(option: Option) -> str:
    value = option.default if option.default_is_value else ""
    prose = option.description
    if option.default == "required":
        prose += " Required."
    elif option.default and not value:
        prose += f" Default: {option.default}."
    lines = textwrap.wrap(prose, 116, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    example = EXAMPLES.get(option.variable)
    lines.append(f"#{option.variable}={value}" if example is None else f"{option.variable}={example}")
    section = SECTIONS.get(option.variable)
    return "\n".join([*([f"## {section}\n"] if section else []), *lines, ""])


def render() -> str:
    """Return the file's text."""
    return "\n".join([HEADER, *(_entry(option) for option in options())])


if __name__ == "__main__":
    sys.stdout.write(render())
