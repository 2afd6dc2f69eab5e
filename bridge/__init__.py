"""The AMQP bridge: forwards one RabbitMQ queue to another, losing nothing. Begin with `window`."""
