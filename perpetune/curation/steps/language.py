"""Quarantine rows whose input is in a language that the task does not serve."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from perpetune.curation.assignment_record import AssignmentRecord, load_record
from perpetune.curation.languages import Confidences, confidences, known_languages, language_mix, with_mix
from perpetune.curation.layout import STEPS
from perpetune.curation.pipeline import input_of
from perpetune.curation.quarantine import Quarantined, StepResult, in_order
from perpetune.curation.repairing.code import is_code
from perpetune.curation.steps.step_files import write_step
from perpetune.curation.text import fingerprint
from perpetune.errors import PerpetuneError
from perpetune.files import write_atomic
from perpetune.params import LanguageParams
from perpetune.records import Example, read_jsonl, to_json

FOREIGN = "input in another language"
UNDECIDED = "undecided"

Detect = Callable[[Sequence[str]], Sequence[Confidences]]

BATCH = 5_000
"""Texts that are detected at once."""
_NEGLIGIBLE = 0.001
# Names and numbers of the web are in no language.
_NO_WORDS = re.compile(r"https?://\S+|www\.\S+|\S+@\S+|<[A-Z_]+(?:_\d+)?>|[#@]\w+|\d+")


class LanguageRows(TypedDict):
    rows: int
    kept: int


@dataclass(frozen=True)
class LanguageResult:
    """The rows kept and quarantined, and by language the number of rows and of those kept, most frequent first."""

    rows: StepResult
    languages: dict[str, LanguageRows]


def language(
    examples: Sequence[Example],
    params: LanguageParams,
    record: AssignmentRecord | None = None,
    detect: Detect = confidences,
) -> LanguageResult:
    """Quarantine rows whose input is, with `min_confidence`, in none of the languages to keep.

    How frequent each language is in these rows counts too: a few words that are likelier in a language that no other row
    has are a coincidence. Short inputs and code are undecided, and so is one whose languages are all less sure: they are kept. A row that the
    record has in the frozen holdout is reported and stays. Raises PerpetuneError if a language is unknown.
    """
    rows = in_order(examples)
    if params.keep is None:
        return LanguageResult(StepResult(tuple(rows), ()), {})
    kept: list[Example] = []
    foreign: list[Quarantined] = []
    reported: list[Quarantined] = []
    found: dict[str, LanguageRows] = {}
    for row, sure in zip(rows, _detected(rows, params, detect), strict=True):
        best = max(sorted(sure), key=lambda code: sure[code], default=UNDECIDED)
        decided = best if sure.get(best, 0.0) >= params.min_confidence else UNDECIDED
        counts = found.setdefault(decided, {"rows": 0, "kept": 0})
        counts["rows"] += 1
        other = 1 - sum(sure.get(code, 0.0) for code in params.keep)
        if not sure or best in params.keep or other < params.min_confidence:
            kept.append(row)
            counts["kept"] += 1
            continue
        quarantined = Quarantined(reason=FOREIGN, detail=f"{best} ({sure[best]:.2f})", example=row)
        if record is not None and record.is_frozen(row):
            kept.append(row)
            counts["kept"] += 1
            reported.append(quarantined)
        else:
            foreign.append(quarantined)
    by_count = dict(sorted(found.items(), key=lambda pair: (-pair[1]["rows"], pair[0])))
    return LanguageResult(StepResult(tuple(kept), tuple(foreign), reported=tuple(reported)), by_count)


def _detected(rows: Sequence[Example], params: LanguageParams, detect: Detect) -> list[Confidences]:
    """The confidences of each row, none for those that are too short or code."""
    texts = [_decidable(row.input, params.min_letters) for row in rows]
    wanted = sorted(
        {text for text in texts if text is not None}, key=lambda text: (fingerprint("language", text), text)
    )
    by_text = dict(zip(wanted, _in_this_mix(wanted, detect), strict=True))
    return [by_text[text] if text is not None else {} for text in texts]


def _in_this_mix(texts: Sequence[str], detect: Detect) -> list[Confidences]:
    """The confidences of texts in an order by chance, if languages are as frequent as they are among them."""
    codes: dict[str, int] = {}
    found: list[NDArray[np.float32]] = []
    for start in range(0, len(texts), BATCH):
        found += _vectors(detect(texts[start : start + BATCH]), codes)
    if not found:
        return []
    table = np.zeros((len(found), len(codes)), np.float32)
    for place, vector in enumerate(found):
        table[place, : len(vector)] = vector
    names = list(codes)
    mix = language_mix(table)
    return [
        {names[place]: float(row[place]) for place in np.flatnonzero(row > _NEGLIGIBLE).tolist()}
        for start in range(0, len(table), BATCH)
        for row in with_mix(table[start : start + BATCH], mix)
    ]


def _vectors(detected: Sequence[Confidences], codes: dict[str, int]) -> list[NDArray[np.float32]]:
    """One vector a text, with the places of `codes`, to which new languages are added."""
    vectors = []
    for sure in detected:
        for code in sorted(sure):
            codes.setdefault(code, len(codes))
        vector = np.zeros(len(codes), np.float32)
        vector[[codes[code] for code in sure]] = list(sure.values())
        vectors.append(vector)
    return vectors


def _decidable(text: str, min_letters: int) -> str | None:
    words = " ".join(_NO_WORDS.sub(" ", text).split())
    return words if _letters(words) >= min_letters and not is_code(text) else None


def _letters(text: str) -> int:
    """An ideograph or a syllable in one sign says as much as three letters."""
    return sum(3 if "\u3040" <= sign <= "\ud7a3" else 1 for sign in text if sign.isalpha())


def _require_known(codes: Sequence[str]) -> None:
    known = known_languages()
    if unknown := [code for code in codes if code not in known]:
        raise PerpetuneError(
            f"no language that can be detected has the code {unknown[0]!r}",
            where="params.yaml, language.keep",
            do=f"name languages by their ISO 639-1 codes: {', '.join(sorted(known))}",
        )


def run(params: LanguageParams, seed: int, workspace: Path) -> str:
    """Write `data/language/`: examples, quarantined rows, counts. `seed` is that of the split, whose record it reads."""
    record = None
    if params.keep is not None:
        _require_known(params.keep)
        record = load_record(workspace, seed)
    rows = read_jsonl(workspace / input_of("language", workspace) / "examples.jsonl", Example)
    result = language(rows, params, record)
    said = write_step(workspace, "language", result.rows)
    write_atomic(workspace / STEPS / "language" / "languages.json", to_json(result.languages))
    return said
