"""The bench: the bridge beside RabbitMQ's Shovel and an idiomatic aio-pika loop, same brokers, same run."""
