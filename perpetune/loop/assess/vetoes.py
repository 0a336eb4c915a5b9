"""Measure what can veto a promotion: forgetting, latency, cost and leakage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from perpetune.evaluation.forgetting import general_texts, losses_in_time, tokenize_texts
from perpetune.evaluation.latency import LatencyPair, measure_interleaved, sample_positions
from perpetune.evaluation.leakage import leakage
from perpetune.evaluation.vetoes import forgetting_limit, latency_limits, leakage_limits
from perpetune.loop.assess.answering import Log, Predict, with_request_progress
from perpetune.loop.assess.systems import Systems, adapters
from perpetune.policy.promotion.evidence import Limit
from perpetune.records import Example
from perpetune.workspace import Workspace

LATENCY_ROWS = 40
FORGETTING_SECONDS = 15.0


def measured_limits(
    workspace: Workspace,
    systems: Systems,
    held_out: Mapping[str, Sequence[Example]],
    train: Sequence[Example],
    log: Log,
) -> dict[str, Limit]:
    """Limits that can veto a promotion: forgetting, latency, cost, and held-out rows that were trained on.

    Latency and cost are compared with the champion, if there is one. Against a linear or remote champion they veto
    nothing: a linear one is always faster, and a remote one is not timed.
    """
    rules, params = workspace.params.promote, workspace.params.evaluate
    limits = leakage_limits(leakage(train, [row for rows in held_out.values() for row in rows]), rules)
    predictor, champion = systems.predictor, systems.champion
    tokenizer = predictor.chat.formatted(systems.challenger.card.prompt_format)
    texts = tokenize_texts(tokenizer, general_texts(), predictor.context)
    with adapters(systems) as predictors:
        log(f"measuring forgetting on {len(texts)} general texts")
        before = "champion" if champion is not None and champion.system == "tuned" else None
        losses = losses_in_time(
            FORGETTING_SECONDS,
            lambda some: predictor.mean_losses(before, some),
            lambda some: predictor.mean_losses("challenger", some),
            texts,
            params.seed,
        )
        limits |= forgetting_limit(*losses, rules, params)
        limited = rules.max_slowdown is not None or rules.max_cost is not None
        # A remote champion is not timed because each request costs money.
        if limited and champion is not None and champion.system != "remote":
            log(f"timing at least {rules.timed_rows} requests")
            latency = _latency(predictors, held_out["frozen"], rules.timed_rows, params.seed, log)
            limits |= latency_limits(latency, "champion", rules, params, vetoes=champion.system != "linear")
    return limits


def _latency(
    predictors: Mapping[str, Predict], rows: Sequence[Example], least: int, seed: int, log: Log
) -> LatencyPair:
    """Seconds per request of the challenger and the champion, each as it is served."""
    some = [rows[position] for position in sample_positions(rows, max(LATENCY_ROWS, least), seed)]

    def one(name: str) -> Callable[[int], object]:
        return lambda position: predictors[name]([some[position]])

    return measure_interleaved(
        one("champion"), with_request_progress(one("challenger"), "latency and cost", least, log), len(some), least
    )
