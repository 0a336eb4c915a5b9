"""Whether the splits are large enough, and if not, which setting or rows are to blame."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from perpetune.curation.running.pipeline import FOLDERS, steps_of
from perpetune.curation.splitting.splits import HELD, LEAKED, MOVED, NEAR, Splits
from perpetune.curation.steps import clean
from perpetune.curation.steps.mix import NOT_REPLAYED
from perpetune.errors import PerpetuneError
from perpetune.params import SplitParams, TaskParams

_MORE = "add more examples with `perpetune ingest FILE`, and `inbox` in fetch.sources of params.yaml"
_LONG = "raise clean.max_input_chars or clean.max_output_chars in params.yaml, or shorten the rows"
_ALIKE = (
    "if the rows are alike by nature, such as forms, set split.near_duplicates: false in params.yaml; "
    "if they belong together, give them the same `group`"
)
_ADVICE = {
    clean.RARE: "if the outputs are free text, set task.kind: generation in params.yaml; "
    "if they are labels, add rows of each or lower clean.min_label_rows",
    clean.UNKNOWN: "correct task.labels in params.yaml; null takes the labels of the data",
    clean.INVALID: "correct task.output_schema in params.yaml, or the outputs",
    clean.LONG_INPUT: _LONG,
    clean.LONG_OUTPUT: _LONG,
    clean.UNDECIDED: "decide for one label of the rows with the same input; data/clean/quarantined.jsonl lists them",
    NOT_REPLAYED: "raise mix.replay in params.yaml, or null to keep all older rows",
    HELD: "give the rows back their former groups or ids, or ask for new holdouts with another split.seed in params.yaml",
    MOVED: "if you added or changed groups, ask for new holdouts with another split.seed in params.yaml",
    **dict.fromkeys((*NEAR.values(), *LEAKED.values()), _ALIKE),
}
"""What to do about rows that were quarantined for a reason."""


def require_enough(
    splits: Splits, params: SplitParams, task: TaskParams, dropped: Mapping[str, int] | None = None
) -> None:
    """Raise PerpetuneError, with counts and advice, if the splits are too small to train and evaluate a model.

    `dropped` counts the rows that earlier steps quarantined, by reason.
    """
    reasons = Counter(dict(dropped or {})) + Counter(row.reason for row in splits.quarantined)
    if len(splits.train) < params.min_train_rows:
        raise PerpetuneError(
            f"{_rows(len(splits.train), 'training row')} {'is' if len(splits.train) == 1 else 'are'} fewer than "
            f"split.min_train_rows, {params.min_train_rows} ({splits.counts()}){_listed(reasons)}",
            do=_advice(reasons, lacking=params.min_train_rows - len(splits.train)),
        )
    if not splits.frozen:
        raise PerpetuneError(
            f"the frozen holdout is empty, so no model can be evaluated ({splits.counts()}){_listed(reasons)}",
            do=f"raise split.frozen in params.yaml, or {_MORE}",
        )
    labels = sorted({row.output for row in splits.train})
    if task.kind == "classification" and len(labels) < 2:
        raise PerpetuneError(
            f"all {len(splits.train)} training rows have the same label, {labels[0]!r}{_listed(reasons)}",
            do="add examples of another label, or set task.kind: generation in params.yaml",
        )


def dropped_before(workspace: Path) -> Counter[str]:
    """The rows that the steps before the split quarantined, by reason."""
    before = [step for step in steps_of(workspace) if step not in ("split", "select")]
    files = [workspace / FOLDERS[step] / "counts.json" for step in before]
    counts = [json.loads(file.read_text(encoding="utf-8"))["quarantined"] for file in files if file.is_file()]
    return sum(map(Counter, counts), Counter[str]())


def _listed(reasons: Counter[str]) -> str:
    shown = [f"{_rows(count, 'row')}: {reason}" for reason, count in reasons.most_common(3)]
    return f"; quarantined: {'; '.join(shown)}" if shown else ""


def _rows(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _advice(reasons: Counter[str], lacking: int) -> str:
    """About the most frequent reason if its rows would have been enough, else to bring more."""
    for reason, count in reasons.most_common():
        if reason in _ADVICE and count >= lacking:
            return f"{_ADVICE[reason]}; or {_MORE}"
    return _MORE
