"""The first version: the base prompted with the task's instruction and examples, which serves before any fine-tuning."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from perpetune.curation.splitting.assignment_record import load_record
from perpetune.curation.steps.clean import clean
from perpetune.curation.steps.fetch import fetch
from perpetune.curation.steps.split import split
from perpetune.errors import PerpetuneError
from perpetune.generation.answer import PromptRejected
from perpetune.loop.assess.few_shot import few_shot
from perpetune.loop.curate import read_split
from perpetune.loop.run_context import environment_tags, git_commit
from perpetune.loop.untrained_versions import save_untrained_version
from perpetune.model.release import ModelCard, ServedBase
from perpetune.params import Params
from perpetune.records import Example, Message, conversation
from perpetune.tracking import registry
from perpetune.tracking.runs import close_run, delete_run, open_run, read_run
from perpetune.workspace import Workspace

logger = logging.getLogger(__name__)

FIRST = "first"  # the tag `perpetune.kind` of its run
MAX_SHOT_TOKENS = 1024  # a CPU needs seconds to prefill more, and the prefix cache does not keep more
MAX_LABEL_TOKENS = 16  # while the labels are not known


def make_first_version(workspace: Workspace, base: ServedBase) -> str:
    """Register the prompted base, or the model of `serve.initial_model`, as champion of a task that has none; returns its version.

    If several gateways do so at once, the oldest version wins and the others are deleted.
    """
    card = first_version_card(workspace, base)
    with TemporaryDirectory() as folder:
        digest = save_untrained_version(Path(folder), card)
        made = None if _versions_of(card.task, digest) else _register(workspace, Path(folder), card, digest)
    oldest = _versions_of(card.task, digest)[0]
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
        **environment_tags(),
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


def _versions_of(task: str, digest: str) -> list[str]:
    """First versions with this card, oldest first."""
    return [each.version for each in reversed(registry.versions(task)) if _digest_of_first(each.run_id) == digest]


def is_first_version(run_id: str) -> bool:
    """Whether the run made a first version, which has no evaluation."""
    return _digest_of_first(run_id) is not None


def _digest_of_first(run_id: str) -> str | None:
    tags = read_run(run_id).tags
    return tags.get("adapter.digest") if tags.get("perpetune.kind") == FIRST else None


def first_version_card(workspace: Workspace, base: ServedBase) -> ModelCard:
    """The model card of the first version, with the labels and examples known in this workspace."""
    params = workspace.params
    rows, teachable = known_rows(workspace)
    labels = _labels(params, rows)
    unknown_labels = params.task.kind == "classification" and labels is None
    card = ModelCard(
        task=params.task.name,
        kind=params.task.kind,
        instruction=params.task.instruction,
        labels=labels,
        base=params.base,
        base_digest=base.digest,
        precision=params.train.precision,
        max_new_tokens=MAX_LABEL_TOKENS if unknown_labels else params.evaluate.max_new_tokens,
        system="remote" if params.serve.initial_model else "prompted",
        remote=params.serve.initial_model,
        prompt_date=None if params.serve.initial_model else datetime.now(UTC).date(),
    )
    return card.model_copy(update={"shots": _shots(params, card, teachable, base)})


def known_rows(workspace: Workspace) -> tuple[list[Example], list[Example]]:
    """All rows of the workspace, and those that are in no holdout and may serve as examples.

    They come from the training split if there is one, otherwise from the sources.
    """
    if workspace.split("train").is_file():
        curated = read_split(workspace, "train")
        return curated, curated
    params = workspace.params
    try:
        found = fetch(params.fetch.sources, workspace.root, workspace.assets)
        record = load_record(workspace.root, params.split.seed)
    except PerpetuneError as fault:
        logger.info("no examples yet: %s", fault)
        return [], []
    rows = clean(found.examples, params.clean, params.task).kept
    # As the pipeline will split them, so that no example is in a holdout of the first refresh.
    splits = split(rows, params.split, record, labelled=params.task.kind == "classification")
    return [*rows], [*splits.train]


def _labels(params: Params, rows: Sequence[Example]) -> tuple[str, ...] | None:
    labels = params.task.labels_of(row.output for row in rows)
    return labels if labels and len(labels) > 1 else None


def _shots(params: Params, card: ModelCard, rows: Sequence[Example], base: ServedBase) -> tuple[Message, ...]:
    """As many examples as fit into `MAX_SHOT_TOKENS`, and into the context with the longest row.

    There are none if the chat template rejects earlier turns.
    """
    longest = max(rows, key=lambda row: len(row.input), default=None)
    if longest is None:
        return ()
    for count in range(params.evaluate.few_shot_examples, 0, -1):
        shots = few_shot(rows, count, params.evaluate.seed)
        prompt = conversation(card.instruction, longest, shots)
        try:
            if base.tokens(shots) <= MAX_SHOT_TOKENS and base.tokens(prompt) + card.max_new_tokens <= base.context:
                return shots
        except PromptRejected as fault:
            logger.info("no examples: %s", fault.what)
            return ()
    return ()
