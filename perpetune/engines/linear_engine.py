"""The engine of linear models: no queue and no batch, since an answer takes at most some milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from sklearn.pipeline import Pipeline

from perpetune.classifiers.linear import linear_answer, load_linear_model
from perpetune.engines.engine import NotLoaded, require_supported
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta, GenerationConfig, OnDelta
from perpetune.model.release import Release
from perpetune.records import Message, last_said


class LinearEngine:
    """An `Engine` over linear models, which read the last thing that the user said."""

    def __init__(self, assets: Path) -> None:
        self._assets = assets
        self._models: dict[str, Pipeline] = {}

    async def load(self, release: Release) -> None:
        self._models[release.version] = await asyncio.to_thread(load_linear_model, release.adapter, self._assets)

    async def unload(self, version: str) -> None:
        del self._models[version]

    async def answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, hear: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        model = self._models.get(version)
        if model is None:
            raise NotLoaded(version)
        require_supported(generation, labelled=True)
        answer = await asyncio.to_thread(linear_answer, model, last_said(messages))  # a very long text takes its time
        for index in range(generation.n if hear else 0):
            assert hear is not None
            hear(Delta(index, answer.text))
        return (answer,) * generation.n

    async def close(self) -> None:
        self._models.clear()
