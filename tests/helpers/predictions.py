"""Answers of the prediction log, with values that do not matter to a test."""

from __future__ import annotations

from datetime import datetime

from perpetune.records import Message, Prediction


def answered(
    id: str, text: str, output: str, *, task: str, time: datetime, version: str = "1", confidence: float | None = None
) -> Prediction:
    return Prediction(
        id=id,
        time=time,
        task=task,
        version=version,
        messages=(Message(role="user", content=text),),
        input=text,
        output=output,
        prompt_tokens=1,
        completion_tokens=1,
        latency_ms=1,
        confidence=confidence,
    )
