"""The AMQP bridge: forwards one RabbitMQ queue to another, losing nothing.

Layers are folders, and imports go down only: `cli`, `drain`, `check`, `connection`, `observe`, `relay`, `window`,
`settings`, `amqp`. `amqp`, `window` and `relay` are pure: bytes, events and numbers in, bytes and decisions out. Beside
them, `assembly` puts a bridge together, and `errors` and `words` are what all share.

Begin with `assembly`, and with `window`, which names the invariants.
"""
