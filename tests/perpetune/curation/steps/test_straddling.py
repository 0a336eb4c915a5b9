"""No near duplicate of a held-out row is trained on, whichever way it was written again."""

from __future__ import annotations

import random

import pytest
from near_duplicate_kinds import KINDS, NEVER_STRADDLE

from perpetune.curation.readers.row import example_of
from perpetune.curation.rows.sources import is_traffic
from perpetune.curation.splitting.assignment_record import AssignmentRecord
from perpetune.curation.splitting.splits import Splits
from perpetune.curation.steps.split import split
from perpetune.evaluation.leakage import leakage
from perpetune.params import SplitParams
from perpetune.records import Example

PARAMS = SplitParams()
LIMITS = {"typo": 0.05, "one_word": 0.05, "word_order": 0.05, "number": 0.05, "signature": 0.0}

SUBJECTS = [
    "my card",
    "the parcel from Leeds",
    "our invoice",
    "a refund",
    "the new app",
    "your driver",
    "this lamp",
    "the second order",
]
VERBS = [
    "didn't arrive",
    "was charged twice",
    "doesn't open",
    "keeps failing",
    "came back",
    "looks different",
    "is still pending",
]
TIMES = [
    "since Monday",
    "after the update",
    "in the shop",
    "for 3 weeks",
    "yesterday evening",
    "when I travel",
    "on my phone",
]
ENDS = [
    ", can you help?",
    " and nobody answers.",
    ", so what now?",
    "; that's the third time!",
    " but I need it.",
    ".",
    " (see photo)",
]
STARTS = [
    "I think ",
    "Once again ",
    "According to Maria ",
    "Sadly ",
    "Why is it that ",
    "As I wrote, ",
    "",
    "To be clear: ",
]


def sentences(count: int, seed: int = 7) -> list[str]:
    """Sentences of which no two are near duplicates by chance: each has two words of its own."""
    draw = random.Random(seed)
    own = [
        f"{draw.choice('bdfgklmnprst')}{a}{draw.choice('lmnrst')}{b}"
        for a in "aeiou"
        for b in ("ban", "dor", "gul", "mit")
    ]
    found = []
    for number in range(count):
        parts = [draw.choice(part) for part in (STARTS, SUBJECTS, VERBS, TIMES, ENDS)]
        found.append(f"{''.join(parts[:1])}{parts[1]} {own[number % 20]}{number // 20} {parts[2]} {parts[3]}{parts[4]}")
    return found


def rows_of(texts: list[list[str]], source: str = "file") -> list[Example]:
    return [
        example_of({"input": text, "output": "yes" if number % 3 else "no", "id": f"{number}-{place}"}, source)
        for number, variants in enumerate(texts)
        for place, text in enumerate(variants)
    ]


def straddling(splits: Splits) -> set[str]:
    """The sentences that are in several splits."""
    places: dict[str, set[str]] = {}
    for name, part in splits.parts().items():
        for row in part:
            places.setdefault(row.id.split("-")[0], set()).add(name)
    return {number for number, names in places.items() if len(names) > 1}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_and_its_variant_are_in_one_split(kind: str) -> None:
    draw = random.Random(kind)
    texts = [[text, KINDS[kind](text, draw)] for text in sentences(400)]
    splits = split(rows_of(texts), PARAMS, AssignmentRecord(PARAMS.seed), labelled=True)
    found = straddling(splits)

    if kind in NEVER_STRADDLE:
        assert not found
    elif kind in LIMITS:
        assert len(found) <= LIMITS[kind] * 400
    else:
        print(f"{kind}: {len(found)} of 400 straddle")  # nothing lexical finds a paraphrase
    assert len(splits.quarantined) <= 8, "they are split together: hardly a row is lost"
    assert 0.15 < len(splits.frozen) / 800 < 0.25


def test_all_variants_at_once() -> None:
    draw = random.Random(7)
    kinds = [*NEVER_STRADDLE, "one_word", "typo"]
    texts = [[text, *(KINDS[kind](text, draw) for kind in kinds)] for text in sentences(150)]
    splits = split(rows_of(texts), PARAMS, AssignmentRecord(PARAMS.seed), labelled=True)
    assert len(straddling(splits)) <= 0.05 * 150
    assert 0.15 < len(splits.frozen) / sum(map(len, texts)) < 0.25


@pytest.mark.parametrize("kind", NEVER_STRADDLE)
def test_without_a_record_variants_of_held_out_rows_are_quarantined(kind: str) -> None:
    draw = random.Random(kind)
    texts = [[text, KINDS[kind](text, draw)] for text in sentences(200)]
    assert not straddling(split(rows_of(texts), PARAMS))


def test_neither_does_traffic_straddle() -> None:
    draw = random.Random(7)
    texts = sentences(300)
    curated = rows_of([[text] for text in texts])
    traffic = [
        row.model_copy(update={"id": f"{row.id.split('-')[0]}-t"})
        for kind in NEVER_STRADDLE[:3]
        for row in rows_of([[KINDS[kind](text, draw)] for text in texts], "traffic")
    ]
    splits = split([*curated, *traffic], PARAMS, AssignmentRecord(PARAMS.seed), labelled=True)
    assert any(map(is_traffic, splits.train))
    assert not straddling(splits)


def test_the_leakage_check_of_the_evaluation_finds_nothing() -> None:
    """Forms: every text is 90% the same."""
    draw = random.Random(7)
    form = [
        "we",
        "hereby",
        "confirm",
        "that",
        "the",
        "appointment",
        "which",
        "you",
        "made",
        "with",
        "our",
        "clinic",
        "on",
        "the",
        "telephone",
        "takes",
        "place",
    ]
    texts = [[" ".join(form * 3 + [f"room{draw.randint(1, 9)}x", f"floor{number}"])] for number in range(60)]
    splits = split(rows_of(texts), PARAMS, AssignmentRecord(PARAMS.seed), labelled=True)
    found = leakage(splits.train, [*splits.frozen, *splits.validation, *splits.recent])
    assert not found.same and not found.near


def test_rows_that_are_alike_by_nature_can_be_split_all_the_same() -> None:
    texts = [[f"we hereby confirm your appointment at our clinic on the telephone number {n}"] for n in range(100)]
    off = PARAMS.model_copy(update={"near_duplicates": False})
    splits = split(rows_of(texts), off, AssignmentRecord(PARAMS.seed), labelled=True)
    assert not splits.quarantined and len(splits.frozen) == 20


def test_labels_that_differ_with_one_word_are_learned_from_both_sides() -> None:
    """Of rows one word apart with different labels, neither gives the other away."""
    texts = [[f"how can my order w{n} be {word}" for word in ("activated", "frozen")] for n in range(100)]
    rows = [row.model_copy(update={"output": row.id[-1]}) for row in rows_of(texts)]
    splits = split(rows, PARAMS, labelled=True)
    assert not splits.quarantined
