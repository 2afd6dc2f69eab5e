"""What others see of a running bridge: state, metrics, HTTP and log.

Begin with `status`, the state as one value; `metrics` and `http` repeat it, `log` writes one line for each event.
"""
