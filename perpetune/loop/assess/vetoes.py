"""What else may veto a promotion, measured: forgetting, latency, cost and leakage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from perpetune.evaluation.forgetting import general_texts, losses_in_time, tokenize_texts
from perpetune.evaluation.latency import LatencyPair, measure_interleaved, sample_positions
from perpetune.evaluation.leakage import leakage
from perpetune.evaluation.vetoes import forgetting_limit, latency_limits, leakage_limits
from perpetune.loop.assess.answering import Ask, Tell, counting
from perpetune.loop.assess.systems import Systems, adapters
from perpetune.policy.promotion import Limit
from perpetune.records import Example
from perpetune.workspace import Workspace

PACE_ROWS = 40
FORGETTING_SECONDS = 15.0


def measured_limits(
    workspace: Workspace,
    systems: Systems,
    held_out: Mapping[str, Sequence[Example]],
    train: Sequence[Example],
    tell: Tell,
) -> dict[str, Limit]:
    """What else may veto: forgetting, latency, cost, and held-out rows that were trained on.

    Latency and cost are compared with what serves. Nothing does before the first version, and beside a linear model any
    language model is slow: there they are shown and veto nothing.
    """
    rules, params = workspace.params.promote, workspace.params.evaluate
    limits = leakage_limits(leakage(train, [row for rows in held_out.values() for row in rows]), rules)
    predictor, champion = systems.predictor, systems.champion
    texts = tokenize_texts(predictor.base.tokenizer, general_texts(), predictor.context)
    with adapters(systems) as asks:
        tell(f"measuring what was forgotten on {len(texts)} general texts")
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
        # A remote one is not timed: each request costs money, and no core of ours.
        if limited and champion is not None and champion.system != "remote":
            tell(f"timing at least {rules.timed_rows} requests")
            pace = _pace(asks, held_out["frozen"], rules.timed_rows, params.seed, tell)
            limits |= latency_limits(pace, "champion", rules, params, vetoes=champion.system != "linear")
    return limits


def _pace(asks: Mapping[str, Ask], rows: Sequence[Example], least: int, seed: int, tell: Tell) -> LatencyPair:
    """The seconds that requests take the challenger and the champion, each as it is served."""
    some = [rows[position] for position in sample_positions(rows, max(PACE_ROWS, least), seed)]

    def one(name: str) -> Callable[[int], object]:
        return lambda position: asks[name]([some[position]])

    return measure_interleaved(
        one("champion"), counting(one("challenger"), "latency and cost", least, tell), len(some), least
    )
