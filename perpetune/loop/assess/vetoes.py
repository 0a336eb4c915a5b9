"""What else may veto a promotion, measured: forgetting, latency, cost and leakage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from perpetune.evaluation.forgetting import as_tokens, general_texts, losses_within
from perpetune.evaluation.latency import LatencyPair, chosen, in_turns
from perpetune.evaluation.leakage import leakage
from perpetune.evaluation.vetoes import forgetting_limit, latency_limits, leakage_limits
from perpetune.loop.assess.answering import Log, Predict, with_request_progress
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
    tell: Log,
) -> dict[str, Limit]:
    """What else may veto: forgetting, latency, cost, and held-out rows that were trained on.

    Latency and cost are compared with what serves. Nothing does before the first version, and beside a linear model any
    language model is slow: there they are shown and veto nothing.
    """
    rules, params = workspace.params.promote, workspace.params.evaluate
    limits = leakage_limits(leakage(train, [row for rows in held_out.values() for row in rows]), rules)
    answerer, champion = systems.answerer, systems.champion
    texts = as_tokens(answerer.base.tokenizer, general_texts(), answerer.context)
    with adapters(systems) as asks:
        tell(f"measuring what was forgotten on {len(texts)} general texts")
        before = "champion" if champion is not None and champion.system == "tuned" else None
        losses = losses_within(
            FORGETTING_SECONDS,
            lambda some: answerer.losses(before, some),
            lambda some: answerer.losses("challenger", some),
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


def _pace(asks: Mapping[str, Predict], rows: Sequence[Example], least: int, seed: int, tell: Log) -> LatencyPair:
    """The seconds that requests take the challenger and the champion, each as it is served."""
    some = [rows[position] for position in chosen(rows, max(PACE_ROWS, least), seed)]

    def one(name: str) -> Callable[[int], object]:
        return lambda position: asks[name]([some[position]])

    return in_turns(
        one("champion"), with_request_progress(one("challenger"), "latency and cost", least, tell), len(some), least
    )
