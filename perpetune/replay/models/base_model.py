"""The base model of params.yaml in a replay, fine-tuned and prompted as in the loop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date
from pathlib import Path

from perpetune.inference.predictor import Predictor, load_predictor
from perpetune.loop.training.ensemble_training import launch_ensemble
from perpetune.model.release import ModelCard
from perpetune.params import Params
from perpetune.records import Example, conversation
from perpetune.replay.models.learner import FittedModel, Reply
from perpetune.training.job import read_trained, write_trained
from perpetune.training.job_files import TRAINED, Job
from perpetune.training.trainer import Progress
from perpetune.workspace import Workspace


@dataclass
class BaseModel:
    """Fine-tunes the base; adapters and answers are cached in `folder`, so that a repeated replay is fast."""

    workspace: Workspace
    folder: Path
    log: Callable[[str], None] = lambda _: None
    batch_size: int = 64
    _answerer: Predictor | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return f"the base model of params.yaml, {self.workspace.params.base.model}, fine-tuned at each refresh"

    def fit(self, train: Sequence[Example], validation: Sequence[Example]) -> FittedModel:
        """Train, or load the adapter trained before on the same rows with the same settings."""
        params = self.workspace.params
        folder = self.folder / _training_digest(params, train, validation)
        if not (folder / TRAINED).is_file():
            job = Job(
                base=params.base,
                assets=self.workspace.assets,
                instruction=params.task.instruction,
                params=params.training,
                adapter=folder / "adapter",
                checkpoints=None,
                labels=params.head_labels(row.output for row in train),
                prompt_date=_day(train),
            )
            write_trained(folder, launch_ensemble(job, params.evaluate.encoder, train, validation, self._report))
        trained = read_trained(folder)
        card = ModelCard(
            task=params.task.name,
            kind=params.task.kind,
            instruction=params.task.instruction,
            labels=params.task.labels_of(row.output for row in train),
            base=params.base,
            base_digest=trained.base_digest,
            precision=params.train.precision,
            max_new_tokens=params.evaluate.max_new_tokens,
            output_schema=params.task.output_schema,
            prompt_date=_day(train),
        )
        return FittedModel(_Tuned(trained.digest, self, folder, card), trained.seconds)

    def predictor(self) -> Predictor:
        params = self.workspace.params
        if self._answerer is None:
            self._answerer = load_predictor(
                params.base, self.workspace.assets, params.train.precision, params.evaluate.batch_tokens
            )
        return self._answerer

    def _report(self, progress: Progress) -> None:
        self.log(f"training: step {progress.step}/{progress.steps}, {progress.seconds_left:.0f} s left")


@dataclass(frozen=True)
class _Tuned:
    digest: str
    learner: BaseModel
    folder: Path
    card: ModelCard

    def answer(self, rows: Sequence[Example]) -> list[Reply]:
        """Answers from the cache, the others from the model."""
        path = self.folder / "answers.jsonl"
        known = _read(path)
        new = [row for row in rows if _key(row) not in known]
        if new:
            with path.open("a", encoding="utf-8") as file:
                for row, reply in zip(new, self._predict(new), strict=True):
                    known[_key(row)] = reply
                    file.write(json.dumps([_key(row), reply.answer, reply.confidence]) + "\n")
        return [known[_key(row)] for row in rows]

    def _predict(self, rows: Sequence[Example]) -> list[Reply]:
        predictor, card = self.learner.predictor(), self.card
        predictor.load_adapter(self.digest, self.folder / "adapter")
        try:
            prompts = [conversation(card.instruction, row) for row in rows]
            answers = predictor.answer(
                self.digest,
                prompts,
                card.labels,
                card.max_new_tokens,
                card.json_schema,
                prompt_format=card.prompt_format,
            )
        finally:
            predictor.unload_adapter(self.digest)
        return [Reply(answer.text, answer.confidence) for answer in answers]


def _day(rows: Sequence[Example]) -> date | None:
    """The day of the newest row, so that a replay has the same prompts on any day; None if no row has a time."""
    newest = max((row.time for row in rows if row.time), default=None)
    return newest.astimezone(UTC).date() if newest else None


def _read(path: Path) -> dict[str, Reply]:
    if not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("]")]
    return {key: Reply(answer, confidence) for key, answer, confidence in lines}


def _key(row: Example) -> str:
    """The cache key of a row's prompt."""
    prompt = json.dumps([row.input, [message.model_dump() for message in row.messages]])
    return hashlib.sha256(prompt.encode()).hexdigest()[:24]


def _training_digest(params: Params, train: Sequence[Example], validation: Sequence[Example]) -> str:
    parts = [
        params.task.model_dump_json(),
        params.base.model_dump_json(),
        params.train.model_dump_json(),
        params.evaluate.encoder.model_dump_json() if params.evaluate.encoder else "",
        *(row.model_dump_json() for row in train),
        "",
        *(row.model_dump_json() for row in validation),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
