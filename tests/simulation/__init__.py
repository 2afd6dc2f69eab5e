"""Deterministic simulation: model brokers and every fault in random order around the real relay.

`schedule` plays one seed, `process` stands for the bridge's sockets and supervisor, `source` and `destination`
are the brokers, `link` is what lies between, `ledger` knows where every message truly is, and `witness` reads
all that the bridge hears and says. In some schedules the bridges are drains (`draining`).
One seed is one schedule, event for event.
"""
