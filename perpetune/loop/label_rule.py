"""The rule for labels of feedback in a workspace: those of params.yaml, else of the champion and of curated rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from perpetune.curation.rows.sources import is_traffic
from perpetune.curation.steps.fetch import fetch
from perpetune.errors import PerpetuneError
from perpetune.loop.run_context import use_mlflow
from perpetune.output_schema import to_text
from perpetune.prediction_log.labels.rule import LabelRule, policy_of
from perpetune.records import Example, read_jsonl
from perpetune.tracking import registry
from perpetune.tracking.model_card import fetch_card
from perpetune.workspace import Workspace


def label_rule(workspace: Workspace) -> LabelRule:
    """Which labels count in checks and trials. Raises PerpetuneError if the champion's card cannot be read."""
    return _rule(workspace, lambda: _train_rows(workspace))


def label_rule_of_sources(workspace: Workspace) -> LabelRule:
    """The rule with the labels of all sources, which may have some that were not curated yet."""
    return _rule(workspace, lambda: _source_rows(workspace))


def label_rule_at_hand(workspace: Workspace) -> LabelRule:
    """The rule for commands that need no MLflow: while it does not answer, all labels of this workspace's rows count."""
    try:
        use_mlflow(workspace)
        return label_rule(workspace)
    except PerpetuneError:
        return label_rule_of_rows(workspace)


def label_rule_of_rows(workspace: Workspace) -> LabelRule:
    """The rule without MLflow: all labels of this workspace's rows count."""
    return _rule(workspace, lambda: _train_rows(workspace), with_champion=False)


def _rule(workspace: Workspace, rows: Callable[[], Iterable[Example]], *, with_champion: bool = True) -> LabelRule:
    task, policy = workspace.params.task, policy_of(workspace.params)
    if task.kind == "generation":
        return policy.rule(None, to_text(task.output_schema) if task.output_schema else None)
    if task.labels or task.new_labels:
        return policy.rule(None)
    if not with_champion:
        return policy.rule([row.output for row in rows()])
    # Before labels of traffic were checked, two equal mistakes could become a class.
    curated = [row.output for row in rows() if not is_traffic(row)]
    champion = registry.find(task.name, "champion")
    if champion is None:
        return policy.rule(curated)
    card = fetch_card(task.name, champion.version)
    if card is None or card.labels is None:  # it writes freely, because nothing was known when it was made
        return policy.rule(None)
    # The champion's come last, because the last spelling of a label is the one that counts.
    return policy.rule([*curated, *card.labels])


def _train_rows(workspace: Workspace) -> Iterable[Example]:
    train = workspace.split("train")
    return read_jsonl(train, Example) if train.is_file() else _source_rows(workspace)


def _source_rows(workspace: Workspace) -> tuple[Example, ...]:
    try:
        return fetch(workspace.params.fetch.sources, workspace.root, workspace.assets).examples
    except PerpetuneError:  # no source holds a row yet
        return ()
