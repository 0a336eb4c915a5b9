"""Who answers held-out rows in a pass, and how each is asked: as it is, or would be, served."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sklearn.pipeline import Pipeline

from perpetune import registry
from perpetune.evaluation.baselines import answers_of, fitted_linear
from perpetune.evaluation.temperature import fit_temperature
from perpetune.inference.answers import Answerer
from perpetune.linear import load_linear_model
from perpetune.loop.answering import Ask, Tell, remembering, telling
from perpetune.loop.curate import read_split
from perpetune.loop.fine_tune import Challenger
from perpetune.loop.shots import few_shot
from perpetune.records import Example, Message, conversation
from perpetune.release import ModelCard, Release
from perpetune.workspace import Workspace

HOLDOUTS = ("frozen", "recent")


@dataclass(frozen=True)
class Systems:
    """All that answers: what was loaded and fitted, and the examples that the base is shown."""

    answerer: Answerer
    challenger: Challenger
    temperature: float
    champion: Release | None
    champion_model: Pipeline | None
    linear: Pipeline | None
    linear_temperature: float
    shots: tuple[Message, ...]


def load_systems(
    workspace: Workspace,
    answerer: Answerer,
    challenger: Challenger,
    train: Sequence[Example],
    held_out: Mapping[str, Sequence[Example]],
    tell: Tell,
) -> Systems:
    champion, card = _champion(workspace), challenger.card
    linear = fitted_linear(train, workspace.params.evaluate.seed) if card.kind == "classification" else None
    validation = read_split(workspace, "validation")
    return Systems(
        answerer,
        challenger,
        _temperature(workspace, answerer, challenger, tell),
        champion,
        load_linear_model(champion.adapter) if champion and champion.system == "linear" else None,
        linear,
        fit_temperature(answers_of(linear, validation), [row.output for row in validation]) if linear else 1.0,
        _shots(workspace, answerer, challenger, train, [row for rows in held_out.values() for row in rows]),
    )


def held_out_rows(
    workspace: Workspace, answerer: Answerer, challenger: Challenger, tell: Tell
) -> dict[str, list[Example]]:
    """The rows of each holdout that has any."""
    found = {
        holdout: _readable(answerer, challenger, read_split(workspace, holdout), holdout, tell) for holdout in HOLDOUTS
    }
    return {holdout: rows for holdout, rows in found.items() if rows}


def _temperature(workspace: Workspace, answerer: Answerer, challenger: Challenger, tell: Tell) -> float:
    """Of the challenger's confidence, from rows of the validation split, which no figure is reported on."""
    card = challenger.card
    if card.labels is None:
        return 1.0
    rows = _readable(answerer, challenger, read_split(workspace, "validation"), "validation", lambda _: None)
    rows = rows[: workspace.params.train.validation_rows]
    tell(f"challenger: answering {len(rows)} rows of the validation split, which calibrate its confidence")
    answerer.load_adapter("challenger", challenger.adapter)
    try:
        ask = _asking(answerer, "challenger", card, card.max_new_tokens)
        answers = telling("challenger", ask, tell)(rows)
    finally:
        answerer.unload_adapter("challenger")
    return fit_temperature(answers, [row.output for row in rows])


@contextmanager
def adapters(systems: Systems) -> Iterator[dict[str, Ask]]:
    """How the champion, if there is one, and the challenger are asked, while their adapters are loaded."""
    answerer, card, champion = systems.answerer, systems.challenger.card, systems.champion
    loaded = {"challenger": systems.challenger.adapter}
    if champion is not None and champion.system == "tuned":
        loaded["champion"] = champion.adapter
    for name, folder in loaded.items():
        answerer.load_adapter(name, folder)
    try:
        asks = {"challenger": _asking(answerer, "challenger", card, card.max_new_tokens)}
        if champion is not None:
            asks = {"champion": _champion_asked(systems, champion)} | asks
        yield asks
    finally:
        for name in loaded:
            answerer.unload_adapter(name)


def _champion_asked(systems: Systems, champion: Release) -> Ask:
    model = systems.champion_model
    if model is not None:
        return lambda rows: answers_of(model, rows)
    adapter = "champion" if champion.system == "tuned" else None
    return _asking(systems.answerer, adapter, champion, systems.challenger.card.max_new_tokens)


def _asking(answerer: Answerer, adapter: str | None, version: ModelCard | Release, budget: int) -> Ask:
    return lambda rows: answerer.answer(
        adapter,
        [conversation(version.instruction, row, version.shots) for row in rows],
        version.labels,
        budget,
        version.json_schema,
    )


def prompted(workspace: Workspace, systems: Systems, tell: Tell) -> dict[str, Ask]:
    """How the base is asked, among the challenger's labels, without and with examples: nothing twice."""
    card = systems.challenger.card
    settings = [card.base_digest, card.precision, card.labels, card.max_new_tokens, card.json_schema]

    def asked(name: str, shots: tuple[Message, ...]) -> Ask:
        def read(row: Example) -> tuple[Message, ...]:
            return conversation(card.instruction, row, shots)

        prompted = card.model_copy(update={"system": "prompted", "shots": shots})
        ask = _asking(systems.answerer, None, prompted, card.max_new_tokens)
        return remembering(workspace.home / "answers", settings, read, telling(name, ask, tell))

    return {"base": asked("base", ())} | ({"few-shot": asked("few-shot", systems.shots)} if systems.shots else {})


def _readable(
    answerer: Answerer, challenger: Challenger, rows: Sequence[Example], holdout: str, tell: Callable[[str], None]
) -> list[Example]:
    card = challenger.card
    kept = [row for row in rows if answerer.fits(conversation(card.instruction, row), card.labels, card.max_new_tokens)]
    if len(kept) < len(rows):
        tell(f"{len(rows) - len(kept)} rows of the {holdout} holdout are left out: longer than the model can read")
    return kept


def _champion(workspace: Workspace) -> Release | None:
    task = workspace.params.task.name
    found = registry.find(task, "champion")
    return registry.fetch_release(task, found.version, workspace.home / "releases") if found else None


def _shots(
    workspace: Workspace,
    answerer: Answerer,
    challenger: Challenger,
    train: Sequence[Example],
    rows: Sequence[Example],
) -> tuple[Message, ...]:
    """As many examples as the model can read with the longest of the rows; () for none."""
    card, params = challenger.card, workspace.params.evaluate
    asked = [conversation(card.instruction, row) for row in rows]
    if not asked:
        return ()
    longest = rows[max(range(len(rows)), key=lambda place: sum(len(message.content) for message in asked[place]))]
    for count in range(params.few_shot_examples, 0, -1):
        shots = few_shot(train, count, params.seed)
        shown = conversation(card.instruction, longest, shots)
        if shots and answerer.fits(shown, card.labels, card.max_new_tokens):
            return shots
    return ()
