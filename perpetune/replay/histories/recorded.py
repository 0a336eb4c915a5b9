"""The history in this workspace's prediction log."""

from __future__ import annotations

from perpetune.curation.rows.sources import is_traffic
from perpetune.curation.running.layout import SPLITS
from perpetune.errors import PerpetuneError
from perpetune.loop.label_rule import label_rule_at_hand
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import labelled_history
from perpetune.records import Example, read_jsonl
from perpetune.replay.histories.history import History, Request, by_time
from perpetune.workspace import Workspace


def recorded_history(workspace: Workspace) -> History:
    """All labelled requests of the log; the first model is trained on the curated examples, if there are any.

    Raises PerpetuneError if the log has no label.
    """
    log = open_log(workspace.settings.prediction_log)
    try:
        found = labelled_history(log, workspace.params.task.name, label_rule_at_hand(workspace))
    finally:
        log.dispose()
    if not found:
        raise PerpetuneError(
            "the prediction log has no labelled request yet",
            do="use a file with a history: perpetune replay history.jsonl",
        )
    requests = [
        Request(example, prediction.time, max(known, prediction.time), prediction.output, prediction.confidence)
        for prediction, example, known in found
    ]
    return History("the prediction log", by_time(requests), initial=_curated(workspace))


def _curated(workspace: Workspace) -> tuple[Example, ...]:
    paths = [workspace.root / SPLITS / f"{name}.jsonl" for name in ("train", "validation", "frozen")]
    rows = [row for path in paths if path.is_file() for row in read_jsonl(path, Example)]
    return tuple(row for row in rows if not is_traffic(row))
