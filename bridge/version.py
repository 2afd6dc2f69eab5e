"""The version, carried here from `pyproject.toml` by `python -m tests.programs.release version`."""

__version__ = "0.2.0"
