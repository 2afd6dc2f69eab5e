"""The AMQP bridge: forwards one RabbitMQ queue to another, losing nothing.

Layers are folders, and imports go down only: `check`, `connection`, `observe`, `relay`, `window`, `settings`, `amqp`.
`amqp`, `window` and `relay` are pure: bytes, events and numbers in, bytes and decisions out. On top, `cli` and
`assembly`; at the bottom, `errors` and `words`. Begin with `assembly`, which says what a bridge is made of, and with
`window`, which names the invariants.
"""
