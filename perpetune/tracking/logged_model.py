"""A registered version as an MLflow pyfunc model: `mlflow.pyfunc.load_model("models:/NAME@champion").predict(...)`.

MLflow stores model_code.py, which imports this class, with the adapter or the linear model; the base is loaded by
reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

if TYPE_CHECKING:
    from perpetune.generation.answer import Answer
    from perpetune.model.release import ModelCard

    Answers = Callable[[Sequence[str]], list[Answer]]


class VersionModel(PythonModel):
    """Takes a frame with the column `input`, returns one with `output` and, for labels, `confidence`."""

    def load_context(self, context: PythonModelContext) -> None:
        from perpetune.model.release import read_card

        folder = Path(context.artifacts["adapter"])
        self.card = read_card(folder)
        loaders = {"linear": _load_linear, "remote": _load_remote}
        self.answers = loaders.get(self.card.system, _load_language_model)(folder, self.card)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        answers = self.answers([str(text) for text in model_input["input"]])
        table = pd.DataFrame({"output": [answer.text for answer in answers]}, index=model_input.index)
        if self.card.labels is not None:
            table["confidence"] = [answer.confidence for answer in answers]
        return table


def _load_remote(folder: Path, card: ModelCard) -> Answers:
    """A model behind an OpenAI-compatible API."""
    from perpetune.engines.openai_api.tls import remote_tls
    from perpetune.engines.remote_engine import remote_answers
    from perpetune.model.release import ServingFacts, release_of
    from perpetune.records import Message
    from perpetune.settings import Settings

    settings, release = Settings(), release_of(card, card.task, "logged", folder, ServingFacts())

    def answer(texts: Sequence[str]) -> list[Answer]:
        prompts = [release.conversation((Message(role="user", content=text),)) for text in texts]
        return remote_answers(release, prompts, card.max_new_tokens, settings.remote_api_key, remote_tls(settings))

    return answer


def _load_linear(folder: Path, card: ModelCard) -> Answers:
    from perpetune.classifiers.linear import linear_answers, load_linear_model
    from perpetune.settings import Settings

    model = load_linear_model(folder, Settings().assets)
    return lambda texts: linear_answers(model, texts)


def _load_language_model(folder: Path, card: ModelCard) -> Answers:
    """The base with the adapter of a tuned version, or the few-shot examples of a prompted one."""
    from perpetune.inference.predictor import load_predictor
    from perpetune.records import Message, with_instruction
    from perpetune.settings import Settings

    predictor = load_predictor(card.base, Settings().assets, card.precision, batch_tokens=2048)
    adapter = "version" if card.system == "tuned" else None
    if adapter is not None:
        predictor.load_adapter(adapter, folder)

    def answer(texts: Sequence[str]) -> list[Answer]:
        prompts = [
            with_instruction(card.instruction, (Message(role="user", content=text),), card.shots) for text in texts
        ]
        return predictor.answer(
            adapter, prompts, card.labels, card.max_new_tokens, card.json_schema, prompt_format=card.prompt_format
        )

    return answer
