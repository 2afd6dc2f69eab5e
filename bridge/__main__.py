"""`python -m bridge`, and what the console script `amqp-bridge` calls: the same."""

import signal
import sys

from bridge.early import EarlySignals


def main() -> int:
    """Run the command line; return the exit code."""
    # The kernel drops a signal for which PID 1, as a container's entry point is, has no handler, and most of the start
    # is imports. Nothing is connected then, so `run` is as good as drained.
    status = 0 if sys.argv[1:2] == ["run"] else 128 + signal.SIGTERM
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(status))
    early = EarlySignals()
    if sys.argv[1:2] == ["run"]:
        early.listen()
    from bridge import cli  # noqa: PLC0415 - after the handler

    try:
        return cli.main(early=early)
    except ModuleNotFoundError as error:  # a command's imports
        if error.name is None or error.name.startswith("bridge."):
            raise
        sys.stderr.write(
            f"amqp-bridge: {error.name} is not installed for {sys.executable}; install amqp-bridge with its "
            "dependencies, as in `python3 -m pip install .` in a checkout\n"
        )
        return 78  # EX_CONFIG: trying again does not help


if __name__ == "__main__":
    sys.exit(main())
