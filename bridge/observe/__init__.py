"""What others see of a running bridge: state, metrics, HTTP and log.

Begin with `status`, the state as one value; `document` is all that is shown of it, with `history` (the last 15
minutes), `events` and `backlog`; `answers` and `metrics` say it, `http` serves them, `log` writes
one line for each event.
"""
