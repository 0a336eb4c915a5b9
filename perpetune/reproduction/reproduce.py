"""Reproduce a version: train it again from its record, and compare."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from perpetune.curation.erased import load_tombstones
from perpetune.curation.running import dvc
from perpetune.errors import PerpetuneError
from perpetune.evaluation.scores.scoring import scoring_of
from perpetune.evaluation.scores.text_metrics import tidy
from perpetune.inference.predictor import load_predictor
from perpetune.loop.run_context import LOSS, environment_tags, use_mlflow
from perpetune.loop.training.ensemble_training import launch_ensemble
from perpetune.model.release import LABEL_HEAD, POOL, ModelCard, Release, read_card
from perpetune.params.renamed_settings import with_old_names
from perpetune.records import Example, RecordedAnswer, conversation, read_jsonl
from perpetune.reproduction.checkout import check_out, training_command
from perpetune.reproduction.comparison import (
    AnswerComparison,
    Comparison,
    compare_answers,
    compare_curves,
    compare_versions,
    compare_weights,
)
from perpetune.reproduction.recorded_recipe import Recipe, recorded_recipe
from perpetune.tracking import registry
from perpetune.tracking.registry import Version
from perpetune.tracking.runs import RunRecord, artifact, curve_of, read_run
from perpetune.training.job_files import Job
from perpetune.training.trainer import Progress, Report, Trained
from perpetune.workspace import Workspace

VALIDATION = "validation/loss"


class OldJob(Job):
    """A job that code from before schema 2 of params.yaml can read."""

    @model_serializer(mode="wrap")
    def _with_old_names(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = serialize(self)
        return {**values, "params": with_old_names(values["params"], "train")}


@dataclass(frozen=True)
class Reproduction:
    """The result of a reproduction. `notes` are deviations from the recorded training; `folder` is None unless kept."""

    version: str
    comparison: Comparison
    notes: tuple[str, ...]
    seconds: float
    folder: str | None


def reproduce(
    workspace: Workspace, version: str, say: Callable[[str], None], report: Report, *, keep: bool = False
) -> Reproduction:
    """Train with the recorded data, settings, seed and, if the commit is known, code; then compare.

    `say` gets a line for each stage, `report` every training step. Raises PerpetuneError if the version, its settings or
    its data are missing.
    """
    began = time.monotonic()
    use_mlflow(workspace)
    found = registry.get(workspace.params.task.name, version)
    run = read_run(found.run_id)
    with _scratch(workspace, version, keep) as scratch:
        say("fetching the settings, the adapter and the data")
        release = registry.fetch_release(found.task, version, workspace.home / "releases")
        if release.system != "tuned":
            raise PerpetuneError(
                f"version {version} is {release.system}: it was not trained",
                do="choose a tuned version; `perpetune status` lists all versions",
            )
        recipe = recorded_recipe(found.run_id, scratch)
        data = dvc.checkout_splits(workspace.root, _data_version(found), scratch / "data")
        code = check_out(workspace.root, found.tags.get("git.commit", "unknown"), scratch / "code")
        notes = [*([code.note] if code.note else []), *_erased(workspace, _data_version(found)), *_changed(run)]
        for note in notes:
            say(note)
        losses: dict[str, dict[int, float]] = {LOSS: {}, VALIDATION: {}}

        def on_progress(progress: Progress) -> None:
            losses[LOSS][progress.step] = progress.loss
            if progress.validation_loss is not None:
                losses[VALIDATION][progress.step] = progress.validation_loss
            report(progress)

        command = training_command(code, recipe.train, workspace.settings.training_launcher)
        kind = OldJob if code.has_old_names else Job
        trained = _train(workspace, recipe, release, data, scratch, on_progress, command, kind)
        say("comparing")
        comparison = _compare(workspace, found, release, trained, data, losses)
        base = found.tags.get("base.digest")
        if base not in (None, trained.base_digest):
            notes.append("The base model's weights differ from those that it was trained on.")
    folder = str(scratch) if keep else None
    return Reproduction(version, comparison, tuple(notes), time.monotonic() - began, folder)


def _data_version(found: Version) -> str:
    if "data.version" not in found.tags:
        raise PerpetuneError(
            f"version {found.version} has no tag data.version, so its training data are not known",
            do="choose a version that `perpetune refresh` made",
        )
    return found.tags["data.version"]


@contextmanager
def _scratch(workspace: Workspace, version: str, keep: bool) -> Iterator[Path]:
    folder = workspace.home / "reproductions" / f"{version}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _erased(workspace: Workspace, data_version: str) -> list[str]:
    """Notes on rows that the version was trained on and that are gone."""
    return [
        f"Its data have lost {len(each.texts):,} texts, erased on {each.day} by {each.by}: the weights cannot be the same."
        for each in load_tombstones(workspace.root).of_version(data_version)
    ]


def _changed(run: RunRecord) -> list[str]:
    """Notes on versions and machine that differ from the recorded ones."""
    titles = {"perpetune.version": "perpetune", "torch.version": "torch", "machine": "the machine"}
    return [
        f"{titles[name]} was {run.tags[name]} and is {now}."
        for name, now in environment_tags().items()
        if run.tags.get(name, now) != now
    ]


def _train(
    workspace: Workspace,
    recipe: Recipe,
    release: Release,
    data: Path,
    scratch: Path,
    report: Report,
    command: str | None,
    kind: type[Job],
) -> Trained:
    params = recipe.train
    if release.labels is None:  # see Params.training
        params = params.model_copy(update={"class_weights": "none"})
    job = kind(
        base=recipe.base,
        assets=workspace.assets,
        instruction=recipe.task.instruction,
        params=params,
        adapter=scratch / "adapter",
        checkpoints=scratch / "checkpoints",
        labels=release.labels if (release.adapter / LABEL_HEAD).is_file() else None,
        prompt_date=release.prompt_date,
    )
    rows, validation = (read_jsonl(data / f"{name}.jsonl", Example) for name in ("train", "validation"))
    encoder = recipe.evaluate.encoder if (release.adapter / POOL).is_dir() else None
    return launch_ensemble(job, encoder, rows, validation, report, command)


def _compare(
    workspace: Workspace,
    version: Version,
    release: Release,
    trained: Trained,
    data: Path,
    losses: dict[str, dict[int, float]],
) -> Comparison:
    digest = version.tags["adapter.digest"]
    same = digest == trained.digest
    curves = tuple(compare_curves(name, curve_of(version.run_id, name), new) for name, new in losses.items() if new)
    return compare_versions(
        digest,
        trained.digest,
        None if same else compare_weights(release.adapter, trained.adapter),
        curves,
        None if same else _answers(workspace, version, read_card(release.adapter), trained.adapter, data),
        workspace.params.promote,
    )


def _answers(
    workspace: Workspace, version: Version, card: ModelCard, adapter: Path, data: Path
) -> AnswerComparison | None:
    """Answer the frozen rows again; None if the version's answers were not recorded."""
    path = artifact(version.run_id, "answers/challenger.jsonl", data)
    if path is None:
        return None
    recorded = {each.id: each for each in read_jsonl(path, RecordedAnswer) if each.holdout == "frozen"}
    rows = [row for row in read_jsonl(data / "frozen.jsonl", Example) if row.id in recorded]
    params = workspace.params.evaluate
    predictor = load_predictor(card.base, workspace.assets, card.precision, params.batch_tokens)
    predictor.load_adapter("reproduced", adapter)
    prompts = [conversation(card.instruction, row) for row in rows]
    schema = card.json_schema
    answers = predictor.answer(
        "reproduced", prompts, card.labels, card.max_new_tokens, schema, prompt_format=card.prompt_format
    )
    texts = [each.text for each in answers]
    before = [recorded[row.id] for row in rows]
    scoring = scoring_of(card.kind, card.output_schema)
    return compare_answers(
        [tidy(each.output) for each in before],
        [tidy(text) for text in texts],
        [each.score for each in before],
        [scoring.score_row(row, text) for row, text in zip(rows, texts, strict=True)],
        params,
    )
