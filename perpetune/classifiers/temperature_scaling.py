"""A confidence that means what it says: of the answers given with 0.8, about 80 % should be right."""

from __future__ import annotations

from dataclasses import replace

from perpetune.generation.answer import Answer


def scale_temperature(answer: Answer, temperature: float) -> Answer:
    """The answer with its labels' probabilities raised to 1 / `temperature` and normalised again.

    Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017). The order of the labels,
    and so the answer's text, stays as it is; so does free text, which has no probabilities.
    """
    if answer.probabilities is None or temperature == 1.0:
        return answer
    likeliest = max(answer.probabilities.values())  # divided by first, so that no power underflows to all zeros
    weights = {label: (share / likeliest) ** (1 / temperature) for label, share in answer.probabilities.items()}
    total = sum(weights.values())
    probabilities = {label: weight / total for label, weight in weights.items()}
    return replace(answer, probabilities=probabilities, confidence=probabilities[answer.text])
