"""Two receipts held against each other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.drain.request import WrongUseError
from bridge.drain.verification import as_text, compare, read, remarks


def receipt(**changed: Any) -> dict[str, Any]:  # noqa: ANN401 - what JSON holds
    document = {
        "version": 1,
        "source": {"name": "a"},
        "destination": {"name": "b"},
        "moved": 10,
        "bytes": 2560,
        "digest": "ab" * 16,
    }
    return document | changed


FIRST, SECOND = receipt(), receipt(source={"name": "b"}, destination={"name": "c"})


def test_what_the_first_moved_is_what_the_second_took() -> None:
    compared = compare(FIRST, SECOND)
    assert all(each.agrees for each in compared)
    assert as_text(compared, ["unused"]).splitlines() == [
        "ok       queue     b",
        "ok       messages  10",
        "ok       bytes     2560",
        f"ok       digest    {'ab' * 16}",
        "what the first moved is what the second took",
    ]


def test_each_field_that_differs_is_shown_with_what_explains_it() -> None:
    second = SECOND | {"moved": 9, "returned": 1, "left": 0, "digest": "cd" * 16}
    text = as_text(compare(FIRST, second), remarks(second))
    assert "differs  messages  10 != 9\n" in text
    assert text.endswith("the receipts differ\n1 messages were returned to the queue by the second drain\n")


def test_ends_without_a_name_are_compared_as_such() -> None:
    assert not compare(receipt(destination=None), SECOND)[0].agrees


def test_a_receipt_is_read() -> None:
    assert read("a.json", json.dumps(FIRST)) == FIRST


@pytest.mark.parametrize("text", ("", "[]", "{}", json.dumps({"version": 1})))
def test_what_is_no_receipt_is_refused(text: str) -> None:
    with pytest.raises(WrongUseError, match=r"a\.json is no receipt"):
        read("a.json", text)


def test_a_receipt_of_another_version_is_refused() -> None:
    with pytest.raises(WrongUseError, match="version 2"):
        read("a.json", json.dumps(receipt(version=2)))
