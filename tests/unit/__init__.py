"""Unit tests, by package as in `bridge/`; none needs a broker."""
