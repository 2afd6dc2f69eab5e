"""What a token says, for an operator: until when it is good, and what it grants. Its signature is not looked at."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.check.finding import Level
    from bridge.settings.sides import SideSettings
    from bridge.settings.token import Token

MOST_SCOPES = 20
"""Listed; a token may carry those of many services."""
UNITS = ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))


def judged(token: Token, side: SideSettings, now_s: float) -> Iterator[tuple[Level, str]]:
    """Return what is to be said of a side's token at a Unix time, each with its level."""
    whose = f'of user "{token.user}"' if token.user else "of no user (it has neither sub nor client_id)"
    if token.not_before_s is not None and token.not_before_s > now_s:
        yield "error", f"{whose}, and not good before {_date(token.not_before_s)}: look at the clocks here and there"
    elif token.expires_s is None:
        yield "ok", f"{whose}, good for ever"
    elif token.expires_s <= now_s:
        text = f"{whose}, expired at {_date(token.expires_s)} ({_lasting(now_s - token.expires_s)} ago)"
        yield "error", f"{text}: have a new one written; check {side.login_variables()}"
    else:
        text = f"{whose}, good until {_date(token.expires_s)} ({_lasting(token.expires_s - now_s)})"
        if side.renewable:
            yield "ok", text
        else:
            yield "warning", f"{text}; it stands where it cannot be renewed: use {side.variables['password_file']}"
    if token.scopes:
        more = f" and {len(token.scopes) - MOST_SCOPES} more" if len(token.scopes) > MOST_SCOPES else ""
        yield "ok", f"it grants {', '.join(token.scopes[:MOST_SCOPES])}{more}, as the broker's prefix and aliases say"
    else:
        yield "warning", "it grants nothing in the claim scope; does the broker look for permissions in another one?"


def _date(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _lasting(seconds: float) -> str:
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= 2 * size), UNITS[-1])
    return f"{seconds / size:.0f} {unit}"
