"""The task: questions for one of two desks, a tiny random model that knows their words, and settings for small runs."""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path

from word_models import save_word_model

from perpetune.records import Example

NAME = "desk"
LABELS = ("billing", "technical")
SETTINGS: dict[str, dict[str, object]] = {
    "task": {"name": NAME, "instruction": "Which desk answers this question?", "labels": list(LABELS)},
    "fetch": {"sources": ["inbox", "traffic"]},
    "reference": {"min_recent": 15},
    "split": {"frozen": 0.3, "validation": 0.1, "recent": 0.4},
    "train": {
        "precision": "fp32",
        "objective": "likelihood",  # vLLM serves no label head
        "epochs": 4.0,
        "validations": 1,
        "validation_rows": 10,
        "learning_rate": 3e-3,
    },
    "evaluate": {
        "max_new_tokens": 4,
        "few_shot_examples": 0,
        "batch_tokens": 512,
        "bootstrap_samples": 200,
        "encoder": None,
    },
    "promote": {"margin": 0.2, "min_rows": 15, "max_forgetting": 2.0, "approval": "required"},
    "serve": {"engine": "vllm", "poll_seconds": 1.0},
    # No run starts by itself: each round starts its own.
    "watch": {"cron": "0 0 29 2 *", "window": 60, "min_rows": 20},
    "refresh": {"cron": "0 0 29 2 *", "cooldown_minutes": 0, "new_labels": 0},
    "retention": {"cron": "0 0 29 2 *", "delete": True},
}
_QUESTIONS = {
    "billing": ("invoice", "refund", "card payment", "receipt", "subscription fee", "discount"),
    "technical": ("screen", "keyboard", "battery", "password", "printer", "headset"),
}
_OPENINGS = (
    "Hello, my",
    "Please help: the",
    "Since Monday our",
    "I have a problem, the",
    "What about the",
    "Again the",
)
_ENDINGS = ("is wrong", "never came", "is not right any more")


def questions(desk: str) -> list[Example]:
    """Differently worded questions for one desk, in the order of the draw."""
    words = list(product(_OPENINGS, _QUESTIONS[desk], _ENDINGS))
    random.Random(7).shuffle(words)
    return [
        Example(input=" ".join(parts) + ".", output=desk, id=f"{desk}-{n}", group=f"{desk}-{n}", source="chaos")
        for n, parts in enumerate(words)
    ]


def save_model(folder: Path) -> Path:
    """Write a random Llama of the words of the questions, and return its folder."""
    rows = [row for desk in LABELS for row in questions(desk)]
    text = " ".join([*(f"{row.input} {row.output}" for row in rows), str(SETTINGS["task"]["instruction"])])
    return save_word_model(folder, sorted({*text.split(), "system", "user", "assistant"}), 256)
