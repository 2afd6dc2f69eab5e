"""A target for the fuzzer's own tests: it complains of what begins with an x."""

MAX_BYTES = 20


def run(data: bytes) -> None:
    """Complain, or not."""
    assert data[:1] != b"x", "it begins with an x"
