"""Quarantine rows whose input is in a language that the task does not serve."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np

from perpetune.curation.languages import MIX_ROWS, Confidences, confidences, known_languages, language_mix, with_mix
from perpetune.curation.quarantine import Quarantined, StepResult, combined, in_order
from perpetune.curation.repairing.code import is_code
from perpetune.curation.running.engine import IN_PROCESS, Engine, batched
from perpetune.curation.running.layout import STEPS
from perpetune.curation.running.pipeline import input_of
from perpetune.curation.splitting.assignment_record import AssignmentRecord, load_record
from perpetune.curation.steps.step_files import write_batches
from perpetune.curation.text import fingerprint
from perpetune.errors import PerpetuneError
from perpetune.files import write_atomic
from perpetune.params import LanguageParams
from perpetune.records import Example, StoredRecords, to_json

FOREIGN = "input in another language"
UNDECIDED = "undecided"

Mix = Mapping[str, float]
"""The ratio of each language among the rows."""

Detect = Callable[[Sequence[str]], Sequence[Confidences]]

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
    examples: Iterable[Example],
    params: LanguageParams,
    record: AssignmentRecord | None = None,
    detect: Detect = confidences,
    engine: Engine = IN_PROCESS,
) -> LanguageResult:
    """Quarantine rows whose input is, with `min_confidence`, in none of the languages to keep.

    How frequent each language is in these rows counts too: a few words that are likelier in a language that no other row
    has are a coincidence. Short inputs and code are undecided, and so is one whose languages are all less sure: they are
    kept. A row that the record has in the frozen holdout is reported and stays. Raises PerpetuneError if a language is unknown.
    """
    rows, languages = in_order(examples), dict[str, LanguageRows]()
    kept = combined(in_kept_languages(rows, params, languages, record, detect, engine))
    return LanguageResult(kept, most_rows_first(languages))


def in_kept_languages(
    rows: Iterable[Example],
    params: LanguageParams,
    languages: dict[str, LanguageRows],
    record: AssignmentRecord | None = None,
    detect: Detect = confidences,
    engine: Engine = IN_PROCESS,
) -> Iterator[StepResult]:
    """As `language`, for rows in canonical order, which are read twice; the results of their batches.

    Adds to the rows by language.
    """
    if params.keep is None:
        return (StepResult(batch, ()) for batch in batched(rows))
    judge = partial(_judged, params=params, detect=detect, mix=_mix(rows, params, detect))
    judged = engine.batches(judge, rows)
    return (_decided(batch, languages, record) for batch in judged)


@dataclass(frozen=True)
class _Judgement:
    """A row, its language, and if the language is not to be kept, how sure that is."""

    row: Example
    language: str
    foreign: str | None = None


def _mix(rows: Iterable[Example], params: LanguageParams, detect: Detect) -> Mix:
    """The mix of languages, estimated on a sample of the different texts, which their fingerprints draw."""
    texts = (text for row in rows if (text := _decidable(row.input, params.min_letters)) is not None)
    sample = heapq.nsmallest(MIX_ROWS, _different(texts), key=lambda text: (fingerprint("language", text), text))
    found = detect(sample) if sample else []
    codes = sorted({code for sure in found for code in sure})
    table = np.array([[sure.get(code, 0.0) for code in codes] for sure in found], np.float32)
    return dict(zip(codes, language_mix(table).tolist(), strict=True)) if codes else {}


def _different(texts: Iterable[str]) -> Iterator[str]:
    """Each text once, with its hash in memory only."""
    seen: set[int] = set()
    for text in texts:
        if (key := hash(text)) not in seen:
            seen.add(key)
            yield text


def _judged(rows: Sequence[Example], params: LanguageParams, detect: Detect, mix: Mix) -> list[_Judgement]:
    detected = _detected(rows, params, detect)
    return [_judgement(row, _weighed(sure, mix), params) for row, sure in zip(rows, detected, strict=True)]


def _weighed(sure: Confidences, mix: Mix) -> Confidences:
    """The confidences of a text if languages are as frequent as in the mix; one that it lacks is impossible."""
    codes = [code for code in sure if code in mix]
    if not codes:
        return sure
    weighed = with_mix(np.array([[sure[code] for code in codes]]), np.array([mix[code] for code in codes]))
    return dict(zip(codes, weighed[0].tolist(), strict=True))


def _judgement(row: Example, sure: Confidences, params: LanguageParams) -> _Judgement:
    best = max(sorted(sure), key=lambda code: sure[code], default=UNDECIDED)
    found = best if sure.get(best, 0.0) >= params.min_confidence else UNDECIDED
    keep = params.keep or ()
    other = 1 - sum(sure.get(code, 0.0) for code in keep)
    if not sure or best in keep or other < params.min_confidence:
        return _Judgement(row, found)
    return _Judgement(row, found, f"{best} ({sure[best]:.2f})")


def _decided(
    batch: Sequence[_Judgement], languages: dict[str, LanguageRows], record: AssignmentRecord | None
) -> StepResult:
    foreign = [
        Quarantined(reason=FOREIGN, detail=each.foreign, example=each.row) for each in batch if each.foreign is not None
    ]
    reported = [each for each in foreign if record is not None and record.is_frozen(each.example)]
    stays = {id(each.example) for each in reported}
    for each in batch:
        counts = languages.setdefault(each.language, {"rows": 0, "kept": 0})
        counts["rows"] += 1
        counts["kept"] += each.foreign is None or id(each.row) in stays
    return StepResult(
        tuple(each.row for each in batch if each.foreign is None or id(each.row) in stays),
        tuple(each for each in foreign if id(each.example) not in stays),
        reported=tuple(reported),
    )


def most_rows_first(languages: Mapping[str, LanguageRows]) -> dict[str, LanguageRows]:
    return dict(sorted(languages.items(), key=lambda pair: (-pair[1]["rows"], pair[0])))


def _detected(rows: Sequence[Example], params: LanguageParams, detect: Detect) -> list[Confidences]:
    """The confidences of each row, none for those that are too short or code."""
    texts = [_decidable(row.input, params.min_letters) for row in rows]
    wanted = sorted({text for text in texts if text is not None})
    by_text = dict(zip(wanted, detect(wanted), strict=True)) if wanted else {}
    return [by_text[text] if text is not None else {} for text in texts]


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


def run(params: LanguageParams, seed: int, workspace: Path, engine: Engine = IN_PROCESS) -> str:
    """Write `data/language/`: examples, quarantined rows, counts. `seed` is that of the split, whose record it reads."""
    record = None
    if params.keep is not None:
        _require_known(params.keep)
        record = load_record(workspace, seed)
    rows = StoredRecords(workspace / input_of("language", workspace) / "examples.jsonl", Example)
    languages: dict[str, LanguageRows] = {}
    said = write_batches(workspace, "language", in_kept_languages(rows, params, languages, record, engine=engine))
    write_atomic(workspace / STEPS / "language" / "languages.json", to_json(most_rows_first(languages)))
    return said
