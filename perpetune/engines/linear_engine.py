"""The engine of linear models. Without queue or batches, because an answer takes a few milliseconds at most."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from perpetune.engines.engine import NotLoaded, require_supported
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta, GenerationConfig, OnDelta
from perpetune.model.release import Release
from perpetune.records import Message, last_user_message

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


class LinearEngine:
    """An `Engine` over linear models, whose input is the last user message.

    scikit-learn takes a second to import, so it is imported when the first of them loads.
    """

    def __init__(self, assets: Path) -> None:
        self._assets = assets
        self._models: dict[str, Pipeline] = {}

    async def load(self, release: Release) -> None:
        self._models[release.version] = await asyncio.to_thread(_load, release.adapter, self._assets)

    async def unload(self, version: str) -> None:
        del self._models[version]

    async def answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        model = self._models.get(version)
        if model is None:
            raise NotLoaded(version)
        from perpetune.classifiers.linear import linear_answer

        require_supported(generation, labelled=True)
        answer = await asyncio.to_thread(
            linear_answer, model, last_user_message(messages)
        )  # a very long text would block the event loop
        for index in range(generation.n if on_delta else 0):
            assert on_delta is not None
            on_delta(Delta(index, answer.text))
        return (answer,) * generation.n

    async def close(self) -> None:
        self._models.clear()


def _load(folder: Path, assets: Path) -> Pipeline:
    from perpetune.classifiers.linear import load_linear_model

    return load_linear_model(folder, assets)
