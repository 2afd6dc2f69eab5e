"""Hostile bytes, guided by coverage: `make fuzz`.

`targets` is what is fuzzed and what must hold, `corpora` what has been found worth trying. atheris tries variants of it
and keeps what reaches new branches (`__main__`); the test suite tries the corpus and some fixed damage to it, wherever
it runs (`test_fuzz`).
"""
