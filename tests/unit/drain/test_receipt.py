"""The receipt: numbers, exit status, and a sentence on each number that differs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bridge.drain.finish import Conclusion
from bridge.drain.receipt import EXPLAINED, Counts, End, Receipt

COUNTS = Counts(asked=100, taken=100, moved=100, left=0, size_bytes=2560, digest="ab" * 16)
RECEIPT = Receipt(
    bridge="1.2.3",
    started="2026-01-02T03:04:05.000Z",
    ended="2026-01-02T03:04:07.000Z",
    seconds=2.0,
    source=End("amqp://here/", "dead", 100, 0),
    destination=End("amqp://there/", "orders", 5, 105),
    counts=COUNTS,
    ending=Conclusion.COMPLETE,
)


def with_counts(ending: Conclusion = Conclusion.COMPLETE, **counts: int | None) -> Receipt:
    return replace(RECEIPT, counts=replace(COUNTS, **counts), ending=ending)  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("ending", Conclusion)
def test_every_ending_is_explained_and_has_its_status(ending: Conclusion) -> None:
    found = replace(RECEIPT, ending=ending)
    assert EXPLAINED[ending] in found.text
    assert found.status == (0 if ending in {Conclusion.COMPLETE, Conclusion.EMPTY} else 1)


def test_a_side_that_was_never_reached_has_its_own_status() -> None:
    assert with_counts(Conclusion.UNREACHABLE, taken=0).status == 69


def test_a_signal_has_its_status() -> None:
    assert replace(RECEIPT, ending=Conclusion.SIGNAL, signal=15).status == 143


def test_when_all_is_as_it_should_be_there_is_nothing_to_remark() -> None:
    assert RECEIPT.remarks == []
    assert RECEIPT.text.startswith("done: all that was asked for is moved\n  moved      100 messages, 2,560 bytes\n")
    assert "0.50 s" in replace(RECEIPT, seconds=0.5).text


def test_messages_that_never_came_are_explained() -> None:
    expired = with_counts(Conclusion.EMPTY, moved=70, taken=80, returned=10, left=20)
    expired = replace(expired, destination=End("", "orders", 5, 75))
    (remark,) = expired.remarks
    assert remark.startswith("20 of the 100 messages that were ready at the start never came: they expired on the way")
    beside = replace(expired, doubts=("the queue has 1 other consumer, which may take some of them",))
    assert "the queue's other consumers took them, or they expired" in beside.remarks[0]
    assert beside.remarks[1].startswith("that these are the messages of the start is not known")


def test_what_never_came_is_explained_beside_what_stays() -> None:
    stayed = with_counts(Conclusion.STAYED, moved=70, taken=80, returned=10, left=30)
    assert stayed.status == 1
    assert replace(stayed, destination=End("", "ex")).remarks[0].startswith("20 of the 100 messages")


def test_an_empty_queue_without_a_number_has_nothing_to_explain() -> None:
    assert with_counts(Conclusion.EMPTY, asked=None, left=None).remarks == []
    assert with_counts(Conclusion.EMPTY).remarks == []


def test_what_is_refused_is_told_with_the_reason() -> None:
    refused = with_counts(Conclusion.REFUSED, moved=100, refused=3, left=3)
    assert refused.remarks == ["3 messages are refused by the destination and stay in the queue"]
    assert replace(refused, reasons=("has no route", "is full")).remarks[0].endswith("(has no route; is full)")
    assert [line.strip() for line in refused.text.splitlines()[4:6]] == ["refused    3", "left       3"]


def test_possible_duplicates_are_told() -> None:
    assert with_counts(duplicates_possible=7).remarks[0].startswith("up to 7 messages may be at the destination twice")


def test_lengths_that_do_not_fit_are_explained() -> None:
    found = replace(RECEIPT, source=End("", "dead", 100, 12), destination=End("", "orders", 5, 50))
    assert found.remarks[0] == "12 messages are in the source queue now: 12 arrived meanwhile"
    assert found.remarks[1].startswith("the destination queue went from 5 to 50 messages and 100 were confirmed there")


def test_lengths_that_are_not_known_are_not_explained() -> None:
    assert replace(RECEIPT, source=End("", "dead", None, 3), destination=End("", "ex")).remarks == []
    assert replace(RECEIPT, destination=End("", "ex", 5, None)).remarks == []
    returned = with_counts(returned=4, moved=96)
    assert replace(returned, source=End("", "d", 100, 4), destination=End("", "o", 0, 96)).remarks == []


def test_how_many_were_not_seen_behind_those_that_do_not_match_is_told() -> None:
    assert (
        with_counts(Conclusion.CROWDED, taken=60, returned=60, moved=0).remarks[0]
        == "40 of the 100 messages were not seen"
    )


def test_it_is_json_for_machines() -> None:
    document = json.loads(RECEIPT.as_json)
    assert document["version"] == 1
    assert (document["ending"], document["status"], document["seconds"]) == ("complete", 0, 2.0)
    assert document["source"] == {"url": "amqp://here/", "name": "dead", "ready_before": 100, "ready_after": 0}
    assert (document["asked"], document["moved"], document["bytes"], document["digest"]) == (100, 100, 2560, "ab" * 16)
    assert document["remarks"] == []


def test_what_was_kept_and_where_the_rest_went_is_told() -> None:
    found = replace(with_counts(returned=3), kept={"do not match": 3}, targets={"orders": 97})
    assert found.remarks[0] == "3 messages do not match: they were returned to the queue"
    assert "  to         orders: 97\n" in found.text
    document = json.loads(found.as_json)
    assert (document["kept"], document["targets"]) == ({"do not match": 3}, {"orders": 97})
