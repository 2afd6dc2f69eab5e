"""What is fuzzed: in each module a function `run`, which is called with any bytes and raises what must not happen.

An input is bytes alone, so that a fuzzer can change it; how they are read stands in each module. Exceptions that are
the right answer, such as `MalformedFrameError`, are caught there and nothing else is.
"""
