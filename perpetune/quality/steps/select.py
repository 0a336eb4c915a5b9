"""The stage after `split`: the training rows that are worth their cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perpetune.curation.quarantine import Quarantined, StepResult, in_order
from perpetune.curation.running.engine import batched
from perpetune.curation.running.layout import DIVIDED, SPLITS
from perpetune.curation.steps.step_files import write_quarantine
from perpetune.curation.text import fingerprint
from perpetune.errors import PerpetuneError
from perpetune.files import write_lines_atomic
from perpetune.params import LabelErrorsParams, SelectParams
from perpetune.quality.embedding_cache import Vectors
from perpetune.quality.facility_location import facility_location
from perpetune.quality.features import Features, features_of
from perpetune.quality.hardness import Prefer, distance_to_prototypes, el2n, preference
from perpetune.quality.judge import judgeable, opinions_of
from perpetune.quality.k_center import k_center
from perpetune.quality.quotas import balanced_quotas
from perpetune.quality.row_quality import text_quality
from perpetune.records import Example, StoredRecords, write_jsonl
from perpetune.workspace import Workspace

NAME = "select"
NOT_SELECTED = "not among the rows of select.budget"
DOUBTED = 0.05
"""The weight of a row for which a model trained on the others finds another label likelier."""
Chooser = Callable[[Vectors, NDArray[np.float64], int], list[int]]


@dataclass(frozen=True)
class Selection:
    """The training rows that were chosen, and those that were not, with the features they were compared by."""

    chosen: tuple[Example, ...]
    left: tuple[Quarantined, ...]
    features: Features | None = None


def select(
    train: Sequence[Example],
    params: SelectParams,
    embed: Callable[[Sequence[str]], Features],
    *,
    labelled: bool,
) -> Selection:
    """Choose `params.budget` rows: evenly over labels, and within each the rows that cover its inputs best.

    Rows with a poor text or a label that is probably wrong count less. Raises PerpetuneError if the budget is less than
    one row for each label.
    """
    rows = in_order(train)
    if params.budget is None or params.budget >= len(rows):
        return Selection(tuple(rows), ())
    strata = _strata(rows, labelled)
    if params.budget < len(strata):
        raise PerpetuneError(
            f"select.budget {params.budget} is less than one row for each of {len(strata)} labels",
            where="params.yaml: select.budget",
            do="raise it, or null to train on all rows",
        )
    if params.method == "random":
        return _parted(rows, _by_hash(rows, strata, params.budget))
    features = embed([row.input for row in rows])
    weights = text_quality(rows) * _weights(rows, features.vectors, params.prefer, labelled)
    choose: Chooser = k_center if params.method == "k_center" else facility_location
    quotas = balanced_quotas({label: len(places) for label, places in strata.items()}, params.budget)
    chosen = {
        places[number]
        for label, places in strata.items()
        for number in choose(features.vectors[places], weights[places], quotas[label])
    }
    return _parted(rows, chosen, features)


def _strata(rows: Sequence[Example], labelled: bool) -> dict[str, list[int]]:
    """The positions of rows by label; free text is one stratum."""
    strata: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        strata[row.output if labelled else ""].append(place)
    return strata


def _weights(rows: Sequence[Example], vectors: Vectors, prefer: Prefer, labelled: bool) -> NDArray[np.float64]:
    """What the label, or its lack, says of the worth of each row, (rows,)."""
    if not labelled:
        return preference(distance_to_prototypes(vectors), prefer) if prefer != "none" else np.ones(len(rows))
    return label_trust(rows, vectors, prefer)


def label_trust(rows: Sequence[Example], vectors: Vectors, prefer: Prefer = "none") -> NDArray[np.float64]:
    """A small weight for rows for which another label is likelier, right or wrong; for all others 1, or less if they are
    not preferred, (rows,).

    It is stricter than `label_errors`: what stands apart from the rows of its label is what covers them best, so a few
    wrong labels that are left would all be chosen.
    """
    folds = LabelErrorsParams().folds
    groups = [row.group for row in rows]
    places, _ = judgeable(rows, groups, folds, max_rows=None)
    trust = np.ones(len(rows))
    if places:
        opinions = opinions_of(
            [rows[place] for place in places], vectors[places], [groups[place] for place in places], folds
        )
        is_doubted = opinions.margins < 0
        found = np.full(len(places), DOUBTED)
        found[~is_doubted] = preference(el2n(opinions)[~is_doubted], prefer)
        trust[places] = found
    return trust


def _by_hash(rows: Sequence[Example], strata: dict[str, list[int]], budget: int) -> set[int]:
    quotas = balanced_quotas({label: len(places) for label, places in strata.items()}, budget)
    hashes = [fingerprint("select", row.source, row.id) for row in rows]
    return {
        place for label, places in strata.items() for place in sorted(places, key=hashes.__getitem__)[: quotas[label]]
    }


def _parted(rows: Sequence[Example], chosen: set[int], features: Features | None = None) -> Selection:
    return Selection(
        tuple(row for place, row in enumerate(rows) if place in chosen),
        tuple(Quarantined(reason=NOT_SELECTED, example=row) for place, row in enumerate(rows) if place not in chosen),
        features,
    )


def run(workspace: Workspace) -> str:
    """Write `data/splits/`: the chosen training rows, and the other splits as they are in `data/divided/`."""
    params, root = workspace.params, workspace.root
    stored = StoredRecords(root / DIVIDED / "train.jsonl", Example)
    if params.select.budget is None:
        return _passed_on(stored, root)
    train = list(stored)

    def embed(texts: Sequence[str]) -> Features:
        return features_of(texts, params.evaluate.encoder, workspace.assets, workspace.home)

    selection = select(train, params.select, embed, labelled=params.task.kind == "classification")
    _copy_other_splits(root)
    write_jsonl(root / SPLITS / "train.jsonl", in_order(selection.chosen))
    write_quarantine(root, NAME, [StepResult(selection.chosen, selection.left)])
    note = f"; {selection.features.note}" if selection.features and selection.features.note else ""
    return f"{len(selection.chosen):,} of {len(train):,} training rows by {params.select.method}{note}"


def _passed_on(train: Iterable[Example], root: Path) -> str:
    """All training rows, without a budget."""
    _copy_other_splits(root)
    count = write_jsonl(root / SPLITS / "train.jsonl", train)
    write_quarantine(root, NAME, (StepResult(batch, ()) for batch in batched(train)))
    return f"all {count:,} training rows (select.budget is null)"


def _copy_other_splits(root: Path) -> None:
    for file in sorted((root / DIVIDED).glob("*.jsonl")):
        if file.name != "train.jsonl":
            with file.open(encoding="utf-8") as lines:
                write_lines_atomic(root / SPLITS / file.name, (line.removesuffix("\n") for line in lines))
