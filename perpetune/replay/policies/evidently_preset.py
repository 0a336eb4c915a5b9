"""A policy that retrains on drift found by Evidently's DataDriftPreset with its defaults."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pandas as pd

from perpetune.evaluation.systems import Kind
from perpetune.monitoring.window import SCORE, Window, current_frame, reference_frame
from perpetune.params import WatchParams
from perpetune.records import Prediction
from perpetune.replay.models.model_cache import ScoredAnswer
from perpetune.replay.policies.policy import Champion, Observation, RetrainCall, cron_times


@dataclass
class EvidentlyPreset:
    """Retrains if the preset finds dataset drift, and releases every trained model.

    The preset compares every `window` new answers of a champion with its held-out rows, on the columns that describe
    inputs, the answer and the confidence, with Evidently's choice of tests and thresholds.
    """

    params: WatchParams
    kind: Kind
    name: str = "Evidently preset"
    gated: bool = False
    _checked: int = 0
    _champion: Champion | None = field(default=None, repr=False)

    def checks(self, begins: datetime, ends: datetime) -> Iterator[datetime]:
        return cron_times(self.params.cron, begins, ends)

    def check(self, observation: Observation) -> RetrainCall | None:
        if observation.champion is not self._champion:
            self._champion, self._checked = observation.champion, 0
        if len(observation.answered) < self._checked + self.params.window:
            return None
        self._checked = len(observation.answered)
        drifted, ratio = preset_drift(
            observation.answered[-self.params.window :],
            [*observation.champion.frozen, *observation.champion.recent],
            self.kind,
            observation.now,
        )
        if not drifted:
            return None
        return RetrainCall(f"{drifted} columns drifted ({ratio:.0%}) in {self.params.window} requests.")


def preset_drift(
    current: Sequence[ScoredAnswer], reference: Sequence[ScoredAnswer], kind: Kind, now: datetime
) -> tuple[int, float]:
    """The number and ratio of drifted columns; (0, ratio) if the ratio is below one half."""
    # Evidently takes seconds to import, which other policies need not wait for.
    from evidently import Report
    from evidently.presets import DataDriftPreset

    from perpetune.monitoring.evidently_report import dataset

    window = Window(
        [_prediction(position, scored, now) for position, scored in enumerate(current)],
        [scored.example for scored in reference],
        {scored.example.id: (scored.reply.answer, scored.reply.confidence) for scored in reference},
        kind,
    )
    # Without the score, which is known for labelled requests only, and late.
    now_frame, then_frame = (_usable(frame) for frame in (current_frame(window), reference_frame(window)))
    columns = [column for column in now_frame if column in then_frame]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        snapshot = Report([DataDriftPreset()]).run(dataset(now_frame[columns]), dataset(then_frame[columns]))
    found = next(
        metric["value"] for metric in snapshot.dict()["metrics"] if "DriftedColumnsCount" in metric["config"]["type"]
    )
    count, ratio = int(found["count"]), float(found["share"])
    return (count if ratio >= 0.5 else 0), ratio


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
