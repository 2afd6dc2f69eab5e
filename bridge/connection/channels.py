"""How many channels a side's user may open, as far as its broker has said: what can be done without is not asked for.

Data and quarantine have a channel each. Two more are for questions; the bridge forwards without an answer to them. The
broker refuses one channel too many by closing the connection (530, `max-channels` of the user; 3.10.8 and 4.3.6), and
a number above what was agreed on at the login (`channel_max`) likewise.
"""

from __future__ import annotations

import re
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.amqp.events import Close

WITH_QUESTIONS = 4
"""Channels of a connection, those for questions included."""

_TOO_MANY = re.compile(r"number of channels opened .* limit of \(?(\d+)\)?")


class Channels:
    """What is known of one side; it outlives the connections."""

    def __init__(self) -> None:
        self.most = inf
        """So many may be open at once."""

    @property
    def for_questions(self) -> bool:
        """Whether there are any to spare for questions."""
        return self.most >= WITH_QUESTIONS

    def agreed(self, channel_max: int) -> None:
        """The broker has set a limit for the connection; 0 for none."""
        self.most = min(self.most, channel_max or inf)

    def refused(self, close: Close) -> bool:
        """Learn from a close; return whether it told of a limit that was not known."""
        found = _TOO_MANY.search(close.reply_text)
        before, self.most = self.most, min(self.most, int(found[1])) if found else self.most
        return self.most < before
