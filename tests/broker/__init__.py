"""The bridge, as a process, against real brokers; what it did is counted by a client that shares nothing with it."""
