"""What a check compares the traffic with. If any of it is missing the check fails: a blind monitor must not look green."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from perpetune.curation.running.layout import REFERENCE
from perpetune.errors import PerpetuneError
from perpetune.evaluation.scores.mistake_costs import deciding_scoring
from perpetune.loop.curate import SPLIT_NAMES
from perpetune.monitoring.decay import reference_rows
from perpetune.params import ReferenceParams
from perpetune.records import Example, RecordedAnswer, read_jsonl
from perpetune.tracking import registry
from perpetune.tracking.registry import Version
from perpetune.tracking.runs import artifact, read_run
from perpetune.workspace import Workspace


def promoted_answers(
    workspace: Workspace, champion: Version, newest: Sequence[RecordedAnswer], folder: Path
) -> Sequence[RecordedAnswer]:
    """The champion's answers when it was promoted: on the recent holdout only, if it had `reference.min_recent` rows.

    With `promote.costs` their scores are by what the answers cost now: see `scored_by_cost`.

    Later evaluations, of which `newest` is the last, do not count, because they would hide decay, unless the version was
    promoted by hand before its own refresh had evaluated it. Raises PerpetuneError if there are none, or MLflow fails.
    """
    system = champion.tags.get(registry.EVALUATED_AS, "challenger")
    is_newest = (champion.run_id, system) == _newest_evaluation(champion)
    found = newest if is_newest else answers(champion.run_id, system, folder)
    if not found and not _was_evaluated(champion):
        found = newest
    used = reference_answers(scored_by_cost(workspace, found), workspace.params.reference)
    if not used:
        raise missing_answers(champion, champion.run_id, system)
    return used


def newest_answers(champion: Version, folder: Path) -> list[RecordedAnswer]:
    """The champion's answers to held-out rows in its last evaluation, possibly against a later challenger.

    Raises PerpetuneError if there are none, or MLflow fails.
    """
    run_id, system = _newest_evaluation(champion)
    found = answers(run_id, system, folder)
    if not found:
        raise missing_answers(champion, run_id, system)
    return found


def _newest_evaluation(champion: Version) -> tuple[str, str]:
    """The run of its last evaluation, and the champion's name among the systems there."""
    run_id, _, system = champion.tags.get("answers", f"{champion.run_id}/challenger").partition("/")
    return run_id, system


def answers(run_id: str, system: str, folder: Path) -> list[RecordedAnswer]:
    """A system's answers in the evaluation of a run; [] if it has none. Raises PerpetuneError if MLflow fails."""
    path = artifact(run_id, f"answers/{system}.jsonl", folder / run_id)
    return read_jsonl(path, RecordedAnswer) if path else []


def scored_by_cost(workspace: Workspace, recorded: Sequence[RecordedAnswer]) -> Sequence[RecordedAnswer]:
    """Recorded answers with scores by what they cost, as the gate counts them; as they are without `promote.costs`.

    A record keeps no right answer, and costs may have changed since. So rows that are no longer in the data are left out.
    Raises PerpetuneError if all are.
    """
    if workspace.params.promote.costs is None or not recorded:
        return recorded
    scoring, rows = deciding_scoring(workspace.params), _rows_at_hand(workspace)
    found = [
        each.model_copy(update={"score": scoring.score_row(rows[each.id], each.output)})
        for each in recorded
        if each.id in rows
    ]
    if not found:
        raise PerpetuneError(
            "answers cannot be judged by promote.costs: none of the rows that the champion was evaluated on is in the data",
            where=str(workspace.split("frozen").parent),
            do="`dvc checkout data/splits` brings them back; or `perpetune refresh --again`, which evaluates a version again",
        )
    return found


def _rows_at_hand(workspace: Workspace) -> dict[str, Example]:
    """All rows of the splits by id: a row of the recent holdout may be in another one since."""
    paths = [workspace.root / REFERENCE / "reference.jsonl", *map(workspace.split, SPLIT_NAMES)]
    stats = [(path, path.stat()) for path in paths if path.is_file()]
    return _rows_of(tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats))


@lru_cache(maxsize=1)
def _rows_of(files: tuple[tuple[Path, int, int], ...]) -> dict[str, Example]:
    """The rows of files as they were at that time and size: a trial asks for them every few seconds."""
    return {row.id: row for path, _, _ in files for row in read_jsonl(path, Example)}


def missing_answers(champion: Version, run_id: str, system: str) -> PerpetuneError:
    return PerpetuneError(
        f"version {champion.version} cannot be checked: its recorded answers to held-out rows are missing",
        where=f"answers/{system}.jsonl of the MLflow run {run_id}",
        do="restore the artifact store; or `perpetune refresh --again`, which evaluates a version again",
    )


def reference_answers(reference: Sequence[RecordedAnswer], params: ReferenceParams) -> Sequence[RecordedAnswer]:
    """The answers on the recent holdout only, if it had `reference.min_recent` rows, otherwise on both holdouts."""
    recent = [row for row in reference if row.holdout == "recent"]
    return reference_rows(recent, [row for row in reference if row.holdout != "recent"], params)


def reference_scores(reference: Sequence[RecordedAnswer], params: ReferenceParams) -> list[float]:
    """The scores (0 to 1) of `reference_answers`."""
    return [row.score for row in reference_answers(reference, params)]


def reference_examples(workspace: Workspace) -> list[Example]:
    """The reference sample of drift. Raises PerpetuneError if the file is missing, unreadable or empty."""
    path = workspace.root / REFERENCE / "reference.jsonl"
    try:
        rows, why = read_jsonl(path, Example), "holds no row"
    except (OSError, ValueError) as fault:  # pydantic's ValidationError is a ValueError
        first = fault.errors()[0]["msg"] if isinstance(fault, ValidationError) else str(fault)
        rows, why = [], f"cannot be read: {first}"
    if not rows:
        raise PerpetuneError(
            f"the traffic cannot be checked: its reference sample {why}",
            where=str(path),
            do="`dvc checkout data/reference` brings it back, `dvc repro reference` makes it again",
        )
    return rows


def _was_evaluated(champion: Version) -> bool:
    """Whether the refresh that made the version came to its decision, and so has evaluated it."""
    return "decision" in read_run(champion.run_id).tags
