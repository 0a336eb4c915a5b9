"""Temperature scaling of an answer's label probabilities (Guo et al., ICML 2017)."""

from __future__ import annotations

from dataclasses import replace

from perpetune.generation.answer import Answer


def scale_temperature(answer: Answer, temperature: float) -> Answer:
    """The answer with its label probabilities raised to 1 / `temperature` and renormalised.

    The answer's text does not change, because the order of the labels does not. Free text has no probabilities and is
    returned as it is.
    """
    if answer.probabilities is None or temperature == 1.0:
        return answer
    highest = max(answer.probabilities.values())  # dividing by it first keeps the powers from underflowing to all zeros
    weights = {
        label: (probability / highest) ** (1 / temperature) for label, probability in answer.probabilities.items()
    }
    total = sum(weights.values())
    probabilities = {label: weight / total for label, weight in weights.items()}
    return replace(answer, probabilities=probabilities, confidence=probabilities[answer.text])
