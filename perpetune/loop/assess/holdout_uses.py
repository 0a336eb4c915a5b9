"""How often held-out rows have decided: counted with each verdict, as the refresh's run keeps it.

Each verdict on the same rows is one more chance for luck, and new rows have none yet. See
docs/decisions/0034-holdouts-are-paid-for.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter

from perpetune.policy.promotion.evidence import HoldoutUse
from perpetune.policy.wording import significant
from perpetune.records import Example, to_json
from perpetune.tracking.runs import Run, artifact, log_text, newest_tagged, tag
from perpetune.workspace import Workspace

USES = "holdout_uses.json"
TAG = "holdout.verdicts"

Uses = dict[str, dict[str, int]]  # verdicts by holdout and row
HeldOut = Mapping[str, Sequence[Example]]  # rows by holdout

_USES = TypeAdapter(Uses)


def uses_before(workspace: Workspace, run: Run) -> Uses:
    """The verdicts that held-out rows have decided, as counted by the newest refresh before this run; {} if none was."""
    before = newest_tagged(workspace.params.task.name, TAG, but=run.id)
    path = artifact(before, USES, workspace.run_folder(before)) if before else None
    return _USES.validate_json(path.read_bytes()) if path else {}


def uses_of(held_out: HeldOut, before: Uses) -> dict[str, HoldoutUse]:
    """The verdicts that the rows of each holdout decided before this one."""
    found = {}
    for holdout, rows in held_out.items():
        known = before.get(holdout, {})
        verdicts = [known.get(row.id, 0) for row in rows]
        found[holdout] = HoldoutUse(sum(verdicts) / len(verdicts), len(verdicts), verdicts.count(0))
    return found


def used_again(held_out: HeldOut, before: Uses) -> Uses:
    """The verdicts that rows have decided, after one more on these."""
    now = {holdout: dict(verdicts) for holdout, verdicts in before.items()}
    for holdout, rows in held_out.items():
        verdicts = now.setdefault(holdout, {})
        verdicts |= {row.id: verdicts.get(row.id, 0) + 1 for row in rows}
    return now


def count_verdict(run: Run, held_out: HeldOut, before: Uses) -> None:
    """Keep with the run that these rows decide once more. A resumed refresh counts its verdict once."""
    now = used_again(held_out, before)
    log_text(run, to_json(now), USES)
    used = uses_of(held_out, now)
    tag(run, {TAG: ", ".join(f"{holdout} {significant(use.verdicts, 2)}" for holdout, use in used.items())})
