"""A registered version as an MLflow model: `mlflow.pyfunc.load_model("models:/NAME@champion").predict(...)`.

MLflow stores this file beside the adapter ("models from code"); the base model is loaded by reference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class AdapterModel(PythonModel):
    """Reads a frame with the column `input`, gives one with `output` (and `confidence`)."""

    def load_context(self, context: PythonModelContext) -> None:
        from perpetune.inference.answers import load_answerer
        from perpetune.release import read_card
        from perpetune.settings import Settings

        adapter = Path(context.artifacts["adapter"])
        self.card = read_card(adapter)
        self.answerer = load_answerer(self.card.base, Settings().assets, self.card.precision, batch_tokens=2048)
        self.answerer.load_adapter("version", adapter)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        from perpetune.records import Message, with_instruction

        conversations = [
            with_instruction(self.card.instruction, (Message(role="user", content=str(text)),))
            for text in model_input["input"]
        ]
        card = self.card
        answers = self.answerer.answer("version", conversations, card.labels, card.max_new_tokens, card.json_schema)
        table = pd.DataFrame({"output": [answer.text for answer in answers]}, index=model_input.index)
        if self.card.labels is not None:
            table["confidence"] = [answer.confidence for answer in answers]
        return table


mlflow.models.set_model(AdapterModel())
