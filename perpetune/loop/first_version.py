"""The first version: the base with the task's instruction and some examples answers before anything was tuned."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from perpetune.curation.steps.clean import clean
from perpetune.curation.steps.fetch import fetch
from perpetune.curation.steps.split import split
from perpetune.errors import PerpetuneError
from perpetune.loop.assess.few_shot import few_shot
from perpetune.loop.curate import read_split
from perpetune.loop.run_context import git_commit, surroundings
from perpetune.loop.untrained_versions import save_card
from perpetune.model.release import ModelCard, ServedBase
from perpetune.params import Params
from perpetune.records import Example, Message, conversation
from perpetune.tracking import registry
from perpetune.tracking.runs import close_run, delete_run, open_run, read_run
from perpetune.workspace import Workspace

logger = logging.getLogger(__name__)

FIRST = "first"  # the tag `perpetune.kind` of its run
MOST_SHOT_TOKENS = 1024  # more would take a processor seconds to read, and would not be kept between requests
MOST_TOKENS_OF_A_LABEL = 16  # while the labels are not known


def make_first(workspace: Workspace, base: ServedBase) -> str:
    """Make the prompted base, or the model of `serve.initial_model`, champion of a task that has none; returns its version.

    Of gateways that do so at once, the one whose version is the oldest wins; the others take theirs back.
    """
    card = first_card(workspace, base)
    with TemporaryDirectory() as folder:
        digest = save_card(Path(folder), card)
        made = None if _made_of(card.task, digest) else _register(workspace, Path(folder), card, digest)
    oldest = _made_of(card.task, digest)[0]
    if made not in (None, oldest):
        registry.delete_version(card.task, str(made))
    if registry.find(card.task, "champion") is None:
        registry.promote(card.task, oldest)
    return oldest


def _register(workspace: Workspace, folder: Path, card: ModelCard, digest: str) -> str:
    reason = f"{card.remote.model if card.remote else 'prompted base'}: the first version, not tuned"
    origin = {
        "perpetune.kind": FIRST,
        "perpetune.trigger": "start of a gateway",
        "perpetune.reason": reason,
        "adapter.digest": digest,
        "git.commit": git_commit(workspace.root),
        **surroundings(),
    }
    run = open_run(card.task, FIRST, origin, {"few_shot_examples": len(card.shots) // 2, "labels": card.labels})
    try:
        tags = {
            "git.commit": origin["git.commit"],
            "base.digest": card.base_digest,
            "adapter.digest": digest,
            "decision": "promote",
            "decision.reason": reason,
        }
        version = registry.register(run, folder, card, tags)
        registry.describe_version(card.task, version, reason)
    except BaseException:
        delete_run(run)
        raise
    close_run(run, succeeded=True)
    logger.info("version %s of %s is the %s", version, card.task, reason)
    return version


def _made_of(task: str, digest: str) -> list[str]:
    """The versions that a gateway has made of this card, oldest first."""
    return [each.version for each in reversed(registry.versions(task)) if _digest_of_first(each.run_id) == digest]


def is_first(run_id: str) -> bool:
    """Whether the run made a first version, which nothing has evaluated."""
    return _digest_of_first(run_id) is not None


def _digest_of_first(run_id: str) -> str | None:
    tags = read_run(run_id).tags
    return tags.get("adapter.digest") if tags.get("perpetune.kind") == FIRST else None


def first_card(workspace: Workspace, base: ServedBase) -> ModelCard:
    """The task as the first version is asked it, with the labels and the examples that are known here."""
    params = workspace.params
    rows, teaching = known_rows(workspace)
    labels = _labels(params, rows)
    guesses = params.task.kind == "classification" and labels is None
    card = ModelCard(
        task=params.task.name,
        kind=params.task.kind,
        instruction=params.task.instruction,
        labels=labels,
        base=params.base,
        base_digest=base.digest,
        precision=params.train.precision,
        max_new_tokens=MOST_TOKENS_OF_A_LABEL if guesses else params.evaluate.max_new_tokens,
        system="remote" if params.serve.initial_model else "prompted",
        remote=params.serve.initial_model,
    )
    return card.model_copy(update={"shots": _shots(params, card, teaching, base)})


def known_rows(workspace: Workspace) -> tuple[list[Example], list[Example]]:
    """All rows that are known here, and those to teach with, which no holdout has.

    They are those of the training split if it was curated, else those of the sources.
    """
    if workspace.split("train").is_file():
        curated = read_split(workspace, "train")
        return curated, curated
    params = workspace.params
    try:
        found = fetch(params.fetch.sources, workspace.root, workspace.assets)
    except PerpetuneError as fault:
        logger.info("no examples are known yet: %s", fault)
        return [], []
    rows = clean(found.examples, params.clean, params.task).kept
    return [*rows], [*split(rows, params.split).train]


def _labels(params: Params, rows: Sequence[Example]) -> tuple[str, ...] | None:
    labels = params.task.labels_of(row.output for row in rows)
    return labels if labels and len(labels) > 1 else None


def _shots(params: Params, card: ModelCard, rows: Sequence[Example], base: ServedBase) -> tuple[Message, ...]:
    """As many examples as are read soon, and leave room in the context for the longest row."""
    longest = max(rows, key=lambda row: len(row.input), default=None)
    if longest is None:
        return ()
    for count in range(params.evaluate.few_shot_examples, 0, -1):
        shots = few_shot(rows, count, params.evaluate.seed)
        asked = conversation(card.instruction, longest, shots)
        if base.tokens(shots) <= MOST_SHOT_TOKENS and base.tokens(asked) + card.max_new_tokens <= base.context:
            return shots
    return ()
