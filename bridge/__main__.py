"""`python -m bridge`, and what the console script `amqp-bridge` calls: the same."""

import signal
import sys


def main() -> int:
    """Run the command line; return the exit code."""
    # The kernel drops a signal for which PID 1, as a container's entry point is, has no handler, and most of the start
    # is imports. Nothing is connected then, so `run` is as good as drained.
    status = 0 if sys.argv[1:2] == ["run"] else 128 + signal.SIGTERM
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(status))
    from bridge import cli  # noqa: PLC0415 - after the handler

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
