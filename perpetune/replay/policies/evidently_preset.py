"""The policy that many start with: Evidently's DataDriftPreset, as it is, on each window of requests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset

from perpetune.evaluation.systems import Kind
from perpetune.monitoring.drift import dataset
from perpetune.monitoring.window import SCORE, Window, current_frame, reference_frame
from perpetune.params import WatchParams
from perpetune.records import Prediction
from perpetune.replay.models.model_cache import ScoredAnswer
from perpetune.replay.policies.policy import Champion, Observation, RetrainCall, moments


@dataclass
class EvidentlyPreset:
    """Retrains where the preset says "dataset drift", and releases what it trained.

    It is run on every `window` new answers of a champion, against the held-out rows of that champion: the columns
    that describe inputs, the answer and the confidence, with Evidently's own choice of tests and thresholds.
    """

    params: WatchParams
    kind: Kind
    name: str = "Evidently preset"
    gated: bool = False
    _seen: int = 0
    _champion: Champion | None = field(default=None, repr=False)

    def checks(self, begins: datetime, ends: datetime) -> Iterator[datetime]:
        return moments(self.params.cron, begins, ends)

    def check(self, observation: Observation) -> RetrainCall | None:
        if observation.champion is not self._champion:
            self._champion, self._seen = observation.champion, 0
        if len(observation.answered) < self._seen + self.params.window:
            return None
        self._seen = len(observation.answered)
        drifted, share = preset_says(
            observation.answered[-self.params.window :],
            [*observation.champion.frozen, *observation.champion.recent],
            self.kind,
            observation.now,
        )
        if not drifted:
            return None
        said = f"as Evidently's preset judges {self.params.window} requests"
        return RetrainCall(f"{drifted} columns drifted ({share:.0%}), {said}.")


def preset_says(
    current: Sequence[ScoredAnswer], reference: Sequence[ScoredAnswer], kind: Kind, now: datetime
) -> tuple[int, float]:
    """How many columns drifted and what share of all; (0, share) where that is less than half of them."""
    window = Window(
        [_prediction(position, scored, now) for position, scored in enumerate(current)],
        [scored.example for scored in reference],
        {scored.example.id: (scored.reply.answer, scored.reply.confidence) for scored in reference},
        kind,
    )
    # The score is no part of it: it is known of labelled requests alone, and late.
    now_frame, then_frame = (_usable(frame) for frame in (current_frame(window), reference_frame(window)))
    columns = [column for column in now_frame if column in then_frame]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        snapshot = Report([DataDriftPreset()]).run(dataset(now_frame[columns]), dataset(then_frame[columns]))
    found = next(
        metric["value"] for metric in snapshot.dict()["metrics"] if "DriftedColumnsCount" in metric["config"]["type"]
    )
    count, share = int(found["count"]), float(found["share"])
    return (count if share >= 0.5 else 0), share


def _usable(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=SCORE).dropna(axis="columns", how="all")


def _prediction(position: int, scored: ScoredAnswer, now: datetime) -> Prediction:
    return Prediction(
        id=str(position),
        time=scored.example.time or now,
        task="replay",
        version="1",
        messages=(),
        input=scored.example.input,
        output=scored.reply.answer,
        prompt_tokens=0,
        completion_tokens=0,
        latency_ms=0,
        confidence=scored.reply.confidence,
        group=scored.example.group,
    )
