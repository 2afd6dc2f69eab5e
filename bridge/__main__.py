"""`python -m bridge`, and what the console script `amqp-bridge` calls: the same."""

import signal
import sys
import threading

from bridge.cli.early import EarlySignals, forbid_core_dumps
from bridge.cli.streams import FULL, open_standard_streams, writing


def main() -> int:
    """Run the command line; return the exit code."""
    open_standard_streams()
    forbid_core_dumps()
    threading.excepthook = end_of_thread
    # The kernel drops a signal for which PID 1, as a container's entry point is, has no handler, and most of the start
    # is imports. Nothing is connected then, so `run` is as good as drained.
    status = 0 if sys.argv[1:2] == ["run"] else 128 + signal.SIGTERM
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(status))
    early = EarlySignals()
    if sys.argv[1:2] == ["run"]:
        early.listen()
    return writing(lambda: _run(early))


def _run(early: EarlySignals) -> int:
    from bridge.cli import grammar  # noqa: PLC0415 - after the handler

    try:
        return grammar.main(early=early)
    except ModuleNotFoundError as error:  # a command's imports
        if error.name is None or error.name.startswith("bridge."):
            raise
        sys.stderr.write(
            f"amqp-bridge: {error.name} is not installed for {sys.executable}; install amqp-bridge with its "
            "dependencies, as in `python3 -m pip install .` in a checkout\n"
        )
        return 78  # EX_CONFIG: trying again does not help
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.errno in FULL:
            raise  # `writing` knows what to do
        return _bug(error)
    except Exception as error:  # noqa: BLE001 - a traceback that Python writes may hold a URL with its password
        return _bug(error)


def _bug(error: Exception) -> int:
    from bridge.observe.log import log_bug  # noqa: PLC0415

    log_bug("process", error)
    return 1


def end_of_thread(ended: threading.ExceptHookArgs) -> None:
    """Log what ended a thread, as `main` does with what ends the process."""
    if ended.exc_value is not None:
        from bridge.observe.log import log_bug  # noqa: PLC0415

        log_bug("thread", ended.exc_value)


if __name__ == "__main__":
    sys.exit(main())
