"""The connections: all that knows asyncio and aio-pika.

Begin with `supervisor`, which runs a bridge; a `keeper` keeps one side up, a `session` is one generation of a side, the
`tap` under it carries the data plane's bytes, `dial` makes the socket, `offloop` runs what blocks meanwhile, and
`diagnosis` turns what the library raises into words.
"""
