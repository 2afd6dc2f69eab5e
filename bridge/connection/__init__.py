"""The connections: all that knows asyncio and aio-pika.

Begin with `supervisor`, which runs a bridge; a `keeper` keeps one side up, a `link` is one connection, a `session`
joins it to the relay for one generation, the `tap` under it carries the data plane's bytes, `dial` makes the socket,
`offloop` runs what blocks meanwhile, `diagnosis` turns what the library raises into words, and `reporter` logs what is
new.
"""
