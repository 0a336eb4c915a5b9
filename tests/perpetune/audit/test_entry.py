"""The chain of digests shows every change of an entry, of their order and of their number."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perpetune.audit.entry import Entry, Event, Head, parse_head, seal, verify
from perpetune.errors import PerpetuneError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def chain() -> list[Entry]:
    entries: list[Entry] = []
    head = Head()
    for number in range(5):
        event = Event("ana@host", "promoted", f"colours version {number}", {"outcome": "promote", "reason": "é \u2028"})
        entries.append(seal(event, NOON + timedelta(minutes=number), head))
        head = Head(entries[-1].number, entries[-1].digest)
    return entries


def test_an_intact_log_ends_with_its_last_entry(chain: list[Entry]) -> None:
    assert verify(chain) == Head(5, chain[-1].digest)
    assert verify([]) == Head()
    assert verify(chain, Head(3, chain[2].digest)).number == 5


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "bob@host"},
        {"action": "rejected"},
        {"subject": "colours version 9"},
        {"details": {"outcome": "reject", "reason": "é \u2028"}},
        {"details": {}},
    ],
)
def test_a_changed_event_is_named(chain: list[Entry], change: dict[str, Any]) -> None:
    chain[2] = replace(chain[2], event=replace(chain[2].event, **change))
    with pytest.raises(PerpetuneError, match="entry 3 was changed"):
        verify(chain)


def test_a_changed_time_is_named(chain: list[Entry]) -> None:
    chain[4] = replace(chain[4], time=NOON)
    with pytest.raises(PerpetuneError, match="entry 5 was changed"):
        verify(chain)


def test_entries_that_are_missing_or_in_another_order_are_named(chain: list[Entry]) -> None:
    with pytest.raises(PerpetuneError, match="entry 2 is missing: after 1 comes 3"):
        verify([chain[0], *chain[2:]])
    with pytest.raises(PerpetuneError, match="entry 1 is missing"):
        verify(chain[1:])
    with pytest.raises(PerpetuneError, match="entry 2 is missing"):
        verify([chain[0], chain[2], chain[1]])


def test_a_rewritten_entry_does_not_fit_those_after_it(chain: list[Entry]) -> None:
    before = Head(chain[1].number, chain[1].digest)
    chain[2] = seal(Event("bob@host", "promoted", "colours version 7"), chain[2].time, before)
    with pytest.raises(PerpetuneError, match="entry 4 does not follow from entry 3"):
        verify(chain)


def test_a_noted_head_shows_what_was_cut_off_or_rewritten_from_there_on(chain: list[Entry]) -> None:
    noted = Head(5, chain[4].digest)
    with pytest.raises(PerpetuneError, match="missing at the end: 5 was noted, 3 is the last"):
        verify(chain[:3], noted)
    chain[4] = seal(Event("bob@host", "promoted", "colours version 7"), NOON, Head(4, chain[3].digest))
    with pytest.raises(PerpetuneError, match="entry 5 is not the one that was noted"):
        verify(chain, noted)


def test_a_head_is_read_as_it_is_printed(chain: list[Entry]) -> None:
    head = verify(chain)
    assert parse_head(f" {head}\n") == head
    for text in ("", "5", "5:abc", f"x:{head.digest}", f"5:{'g' * 64}"):
        with pytest.raises(PerpetuneError, match="no head"):
            parse_head(text)
