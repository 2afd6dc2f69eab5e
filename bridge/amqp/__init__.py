"""AMQP 0-9-1 as bytes, pure: frames cut and written, contents read and changed, and the events that they mean.

Begin with `frames` (numbers, layout, what the bridge writes) and `events` (what the bridge hears); `cutter` turns a
byte stream into events, with `methods` (what a method frame says) and `partial` (a message whose frames come one by
one); `content` knows what is inside a message, `preparer` what of it changes, `pieces` how a large one is written.
Knows nothing of queues, windows or sockets.
"""
