"""A keeper at its end: what is being closed is closed before the bridge says that it has stopped."""

from __future__ import annotations

import asyncio

from pamqp import commands

from bridge.assembly import assemble
from bridge.connection.limits import TimeLimits
from bridge.settings.environment import load_settings
from tests.support.scripted import ScriptedBroker, eventually, on_both_loops, refuse, silence


def closing() -> list[object]:
    """The tasks that close one of the bridge's connections."""
    names = {"Link.close", "Connection.close"}
    return [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") in names]


@on_both_loops
async def test_a_shutdown_waits_for_a_connection_that_is_being_closed() -> None:
    """The broker does not answer the goodbye: left alone, it would be waited for without end."""
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        source.answers[commands.Queue.Declare] = refuse(404, "NOT_FOUND - no queue 'in' in vhost '/'")
        source.answers[commands.Connection.Close] = silence
        environ = {
            "BRIDGE_SOURCE_URL": source.url,
            "BRIDGE_SOURCE_QUEUE": "in",
            "BRIDGE_DESTINATION_URL": destination.url,
            "BRIDGE_DESTINATION_QUEUE": "out",
        }
        supervisor = assemble(load_settings(environ), TimeLimits(close_s=0.5))
        running = asyncio.ensure_future(supervisor.run())
        await eventually(lambda: any(peer.got(commands.Connection.Close) for peer in source.peers))
        supervisor.stop()
        await running
        left = closing()
        await eventually(lambda: not closing())
        assert not left
