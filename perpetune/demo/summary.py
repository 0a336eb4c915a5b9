"""What the demo showed, in numbers: nothing here is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers.utils.logging import disable_progress_bar

from perpetune.demo.application import SentRequest
from perpetune.demo.record import CheckSummary, DemoRecord
from perpetune.evaluation.economics.wording import dollars
from perpetune.inference.predictor import load_predictor
from perpetune.loop.run_context import use_mlflow
from perpetune.records import Message, with_instruction
from perpetune.runtime.prefect_api import FlowRun
from perpetune.statistics.estimate import Estimate, wilson
from perpetune.statistics.paired import PairedComparison, compare
from perpetune.tracking import registry
from perpetune.tracking.runs import artifact_url, find_run, metrics_of, runs_url
from perpetune.workspace import Workspace

STRETCHES = {
    "before": "before the change",
    "changed": "after the change, first champion",
    "after": "after the swap, with the loop",
    "after_without": "the same requests, without it",
}


@dataclass(frozen=True)
class Moment:
    """One request of the stream, answered with the loop and by the first champion alone."""

    with_loop: bool | None
    without_loop: bool


@dataclass(frozen=True)
class Link:
    title: str
    address: str


@dataclass(frozen=True)
class Cost:
    """A way to answer: dollars per 1,000 requests, prompt tokens per request and accuracy on the frozen holdout."""

    system: str
    dollars_per_1000: float
    prompt_tokens: float
    accuracy: float


@dataclass(frozen=True)
class Summary:
    """All that the report shows. Places count requests from the start of the stream."""

    moments: tuple[Moment, ...]
    turned_at: int
    checks: tuple[CheckSummary, ...]
    swap_at: int | None
    refreshes: tuple[FlowRun, ...]
    decisions: tuple[str, ...]
    after: PairedComparison | None
    costs: tuple[Cost, ...]
    links: tuple[Link, ...]
    stages: tuple[tuple[str, float], ...]
    verdict: str

    @property
    def failed(self) -> int:
        return sum(moment.with_loop is None for moment in self.moments)

    @property
    def drift_at(self) -> int | None:
        """The number of requests before the first check that found drift of the inputs."""
        return next((check.requests for check in self.checks if check.inputs_drifted), None)

    @property
    def decay_at(self) -> int | None:
        """The number of requests before the first check that found decay."""
        return next((check.requests for check in self.checks if check.outcome == "retrain"), None)

    def accuracies(self) -> dict[str, Estimate]:
        """The accuracy in each part of the stream that has requests; see `STRETCHES`."""
        turned, swap = self.turned_at, self.swap_at
        after = () if swap is None else self.moments[swap:]
        found = {
            "before": estimate_of(self.moments[:turned], with_loop=True),
            "changed": estimate_of(self.moments[turned:swap], with_loop=True),
            "after": estimate_of(after, with_loop=True),
            "after_without": estimate_of(after, with_loop=False),
        }
        return {name: estimate for name, estimate in found.items() if estimate is not None}

    def short_lines(self) -> list[tuple[str, str]]:
        """The table that the terminal shows."""
        minutes = sum(seconds for _, seconds in self.stages) / 60
        return [
            *((STRETCHES[name], _accuracy(found)) for name, found in self.accuracies().items()),
            ("requests", f"{len(self.moments)}, {self.failed} failed, {minutes:.1f} minutes in all"),
        ]

    def lines(self) -> list[tuple[str, str]]:
        """The table that the report shows."""
        before, turned = self.moments[: self.turned_at], self.moments[self.turned_at : self.swap_at]
        lines = [
            ("requests", f"{len(self.moments)}, of which {self.failed} failed"),
            ("about products, first champion", accuracy_of(before, with_loop=True)),
            ("after the stream turned, before the swap", accuracy_of(turned, with_loop=True)),
        ]
        if self.swap_at is not None:
            after = self.moments[self.swap_at :]
            lines += [
                ("after the swap, with the loop", accuracy_of(after, with_loop=True)),
                ("the same requests, without the loop", accuracy_of(after, with_loop=False)),
            ]
        lines += [
            ("the stream turned", f"at request {self.turned_at + 1}"),
            ("drift seen", _place(self.drift_at)),
            ("decay caught", _place(self.decay_at)),
            ("swapped", "never" if self.swap_at is None else f"at request {self.swap_at + 1}, none refused or lost"),
            *((f"1,000 requests, {cost.system}", _cost(cost)) for cost in self.costs),
            ("time", f"{sum(seconds for _, seconds in self.stages) / 60:.1f} minutes"),
        ]
        if self.failed:
            lines = [(name, value.replace(", none refused or lost", "")) for name, value in lines]
        return lines


def _place(position: int | None) -> str:
    return "never" if position is None else f"by the check after request {position}"


def _cost(cost: Cost) -> str:
    return f"{dollars(cost.dollars_per_1000)} ({cost.prompt_tokens:.0f} prompt tokens each, {cost.accuracy:.1%} right)"


def accuracy_of(moments: Sequence[Moment], *, with_loop: bool) -> str:
    """An accuracy with its interval and sample size."""
    found = estimate_of(moments, with_loop=with_loop)
    return _accuracy(found) if found else "no requests"


def estimate_of(moments: Sequence[Moment], *, with_loop: bool) -> Estimate | None:
    """The accuracy on the requests that did not fail; None if there are none."""
    right = [
        moment.with_loop if with_loop else moment.without_loop for moment in moments if moment.with_loop is not None
    ]
    return wilson(sum(map(bool, right)), len(right), 0.95) if right else None


def _accuracy(found: Estimate) -> str:
    return f"{found.value:.1%} right ({found.low:.1%} to {found.high:.1%}, n={found.n})"


def summarise(workspace: Workspace, story: DemoRecord, asked: Sequence[SentRequest]) -> Summary:
    """Let the first champion answer the whole stream, and put what happened into numbers."""
    use_mlflow(workspace)
    moments = _moments(workspace, asked)
    after = moments[story.swap_at :] if story.swap_at is not None else []
    compared = _compare(after)
    return Summary(
        moments=tuple(moments),
        turned_at=story.turned_at,
        checks=tuple(story.checks),
        swap_at=story.swap_at,
        refreshes=tuple(story.refreshes),
        decisions=tuple(
            f"version {version.version}: {version.tags.get('decision', 'undecided')}. {version.tags.get('decision.reason', '')}"
            for version in reversed(registry.versions(workspace.params.task.name))
        ),
        after=compared,
        costs=_costs(workspace),
        links=_links(workspace, story),
        stages=tuple(story.stages),
        verdict=_verdict(story, compared),
    )


def _moments(workspace: Workspace, asked: Sequence[SentRequest]) -> list[Moment]:
    """The first champion's answers are those it gave where it was asked, and else computed now by the same code.

    It is the version that answered first: the prompted base, which served before it, was asked nothing.
    """
    number = next(one.version for one in asked if one.version)
    first = registry.fetch_release(workspace.params.task.name, number, workspace.home / "releases")
    unasked = [one for one in asked if one.version != number]
    disable_progress_bar()  # half a second of bar would tear the story apart
    predictor = load_predictor(
        first.base, workspace.assets, workspace.params.train.precision, workspace.params.evaluate.batch_tokens
    )
    predictor.load_adapter("first", first.adapter)
    conversations = [
        with_instruction(first.instruction, (Message(role="user", content=one.example.input),)) for one in unasked
    ]
    most = workspace.params.evaluate.max_new_tokens
    answers = predictor.answer("first", conversations, first.labels, most, prompt_format=first.prompt_format)
    old = {id(one): answer.text for one, answer in zip(unasked, answers, strict=True)}
    return [
        Moment(
            with_loop=None if one.answer is None else one.answer == one.example.output,
            without_loop=old.get(id(one), one.answer) == one.example.output,
        )
        for one in asked
    ]


def _compare(after: Sequence[Moment]) -> PairedComparison | None:
    pairs = [(float(moment.without_loop), float(moment.with_loop)) for moment in after if moment.with_loop is not None]
    if not pairs:
        return None
    without, with_loop = zip(*pairs, strict=True)
    return compare(without, with_loop, confidence=0.95, samples=2000, seed=7)


def _verdict(story: DemoRecord, after: PairedComparison | None) -> str:
    if not any(check.outcome == "retrain" for check in story.checks):
        return "The monitor saw no decay, so the loop changed nothing."
    if after is None:
        return "The monitor saw the decay, but the new model was not promoted: the loop did not help."
    gain = f"{100 * after.difference:+.1f} points ({100 * after.low:+.1f} to {100 * after.high:+.1f}, n={after.n})"
    if after.low > 0:
        return f"The loop helped: after the swap it is {gain} against the first champion on the same requests."
    if after.high < 0:
        return f"The loop did harm: after the swap it is {gain} against the first champion on the same requests."
    return f"The loop is not shown to have helped: after the swap it is {gain} against the first champion."


def _costs(workspace: Workspace) -> tuple[Cost, ...]:
    """What the newest evaluation measured, for the fine-tuned model and for prompting the base."""
    newest = registry.versions(workspace.params.task.name)[0]
    found = metrics_of(newest.run_id)
    systems = {"fine-tuned": "challenger", "base prompted with examples": "few-shot", "base prompted": "base"}
    return tuple(
        Cost(
            title,
            found[f"frozen/{system}/dollars_per_1000"],
            found[f"frozen/{system}/prompt_tokens"],
            found[f"frozen/{system}/accuracy"],
        )
        for title, system in systems.items()
        if f"frozen/{system}/dollars_per_1000" in found
    )


def _links(workspace: Workspace, story: DemoRecord) -> tuple[Link, ...]:
    task = workspace.params.task.name
    versions = [
        Link(f"MLflow: version {version.version} and its run", find_run(version.run_id).url)
        for version in reversed(registry.versions(task))
    ]
    refreshes = [Link(f"Prefect: {run.name}", run.url) for run in story.refreshes]
    checks = [
        link
        for number, check in enumerate(story.checks, 1)
        for link in (
            Link(f"Prefect: check {number}, {check.outcome}", check.run.url),
            Link(f"Evidently's report of check {number}", artifact_url(check.mlflow, "drift.html")),
        )
    ]
    pages = (Link("MLflow: all runs", runs_url(task)), Link("MLflow: the model", registry.model_url(task)))
    return (*pages, *versions, *refreshes, *checks)
