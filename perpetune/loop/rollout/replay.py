"""Ask the previous version the inputs that the champion has labels for, before a rollback."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perpetune.errors import PerpetuneError
from perpetune.evaluation.scores.mistake_costs import deciding_scoring
from perpetune.loop.unasked_labels import unasked_labels
from perpetune.monitoring.independent import cluster_of
from perpetune.policy.rollout import Replay, is_better, replayed
from perpetune.policy.verdict import Interval
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.rule import ANY_LABEL
from perpetune.prediction_log.queries import newly_labelled, recent_predictions
from perpetune.records import Message, Prediction
from perpetune.runtime.gateway_client import GatewayClient, batches, gateway_of
from perpetune.statistics.paired import compare
from perpetune.workspace import Workspace

MOST_ROWS = 200  # newest labelled inputs, each of which the gateway's engine has to answer
MOST_ROWS_BY_HAND = 50  # fewer, because a rollback by hand is urgent
PREVIOUS = "previous"
CONFIDENCE, SAMPLES, SEED = 0.95, 2000, 0

Scorer = Callable[[str, str], float]


def replay(gateway: GatewayClient, version: str, labelled: Sequence[Prediction], score: Scorer) -> Replay:
    """Ask a loaded version the newest labelled inputs and compare it with the champion, row by row.

    A request that it fails on scores 0. Requests of one user or session, and equal inputs, are one observation, and labels
    that were drawn for doubt count with their weight. Raises NoGateway, or PerpetuneError if nothing is labelled or the
    gateway cannot ask the version.
    """
    rows = [row for row in labelled if row.label is not None][-MOST_ROWS:]
    if not rows:
        raise PerpetuneError("no answer of the champion is labelled")
    outputs: list[str | None] = []
    for batch in batches([_messages(row) for row in rows]):
        outputs += gateway.answers(version, batch).outputs
    theirs = [score(str(row.label), row.output) for row in rows]
    ours = [0.0 if output is None else score(str(row.label), output) for row, output in zip(rows, outputs, strict=True)]
    paired = compare(
        theirs,
        ours,
        confidence=CONFIDENCE,
        samples=SAMPLES,
        seed=SEED,
        groups=[cluster_of(row) for row in rows],
        weights=[row.weight or 1.0 for row in rows],
    )
    return Replay(
        champion=sum(theirs) / len(rows),
        previous=sum(ours) / len(rows),
        difference=paired.difference,
        interval=Interval(paired.low, paired.high, CONFIDENCE),
        p_value=paired.p_value,
        rows=paired.n,
    )


def compared_by_gateway(workspace: Workspace) -> str:
    """What the previous version answers to the champion's newest labelled inputs, in a line; or why it is not known.

    Asks the gateway and the prediction log only, because a rollback by hand is urgent. Raises NoGateway.
    """
    gateway = gateway_of(workspace)
    try:
        labelled = _newest_labelled(workspace)
        found = replay(gateway, PREVIOUS, labelled, deciding_scoring(workspace.params).score)
    except PerpetuneError as fault:
        return f"the previous version was not asked the same inputs: {fault.what}"
    better = "better" if is_better(found) else "not shown to be better"
    return f"the previous version is {better} than version {labelled[-1].version} on the same inputs: {replayed(found)}"


def _newest_labelled(workspace: Workspace) -> list[Prediction]:
    """Labelled answers of the version that answered last; those that came unasked only if they decide.

    People complain of what the champion answered wrong, and on such requests any other version seems better.
    """
    log, task = open_log(workspace.settings.prediction_log), workspace.params.task.name
    try:
        newest = recent_predictions(log, task, limit=1)
        if not newest:
            return []
        version = newest[0].version
        unasked = unasked_labels(workspace, log, ANY_LABEL, version).decides
        return newly_labelled(log, task, version, 0, newest=MOST_ROWS_BY_HAND, unasked=unasked)[0]
    finally:
        log.dispose()


def _messages(row: Prediction) -> tuple[Message, ...]:
    return row.messages or (Message(role="user", content=row.input),)
