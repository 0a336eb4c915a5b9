"""Self-consistency: how far other samples of the model agree with its answer.

Wang et al., "Self-Consistency Improves Chain of Thought Reasoning" (ICLR 2023, arXiv:2203.11171): answers that samples agree
on are more often right. Manakul, Liusie & Gales, "SelfCheckGPT" (EMNLP 2023, arXiv:2303.08896): so it is with free text,
sentence by sentence; here the task's own score compares whole answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perpetune.errors import PerpetuneError
from perpetune.monitoring.estimates.measured import DECIMALS, Answered, Measured
from perpetune.runtime.gateway_client import GatewayClient, NoGateway, batches

BATCH = 8  # conversations in one request, of each of which there are several samples

Scorer = Callable[[str, str], float]
"""score(expected output, answer), 0 to 1."""


def agreement(output: str, samples: Sequence[str], score: Scorer) -> float | None:
    """The mean score (0 to 1) of the samples if `output` is expected; None without samples."""
    return round(sum(score(output, each) for each in samples) / len(samples), DECIMALS) if samples else None


def agreements(
    answers: Sequence[Answered], gateway: GatewayClient, version: str, count: int, temperature: float, score: Scorer
) -> Measured:
    """Ask a version for `count` samples of each conversation, without logging; it stops at the first batch that fails."""
    values: list[float | None] = []
    if not answers:
        return Measured(())
    for batch in batches([each.messages for each in answers], BATCH):
        try:
            samples = gateway.samples(version, batch, count, temperature)
        except NoGateway:
            return Measured(tuple(values), fault="no gateway runs")
        except PerpetuneError as fault:
            return Measured(tuple(values), fault=fault.what)
        outputs = (each.output for each in answers[len(values) : len(values) + len(batch)])
        values += [agreement(output, drawn, score) for output, drawn in zip(outputs, samples, strict=True)]
    return Measured(tuple(values))
