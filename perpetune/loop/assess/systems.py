"""Who answers held-out rows in a pass, and how each is asked: as it is, or would be, served."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sklearn.pipeline import Pipeline

from perpetune.classifiers.encoder import Encoder, load_encoder
from perpetune.classifiers.ensemble import read_powers
from perpetune.classifiers.linear import load_linear_model
from perpetune.classifiers.temperature import fit_temperature
from perpetune.engines.remote_engine import remote_answers
from perpetune.evaluation.baselines import answers_of, fitted_linear
from perpetune.generation.answer import Answer
from perpetune.inference.predictor import Predictor
from perpetune.loop.assess.answering import Ask, Tell, remembering, telling
from perpetune.loop.assess.few_shot import few_shot
from perpetune.loop.curate import read_split
from perpetune.loop.fine_tune import Challenger
from perpetune.model.release import UNTRAINED, ModelCard, Release
from perpetune.records import Example, Message, conversation
from perpetune.settings import Settings
from perpetune.tracking import registry
from perpetune.workspace import Workspace

HOLDOUTS = ("frozen", "recent")


@dataclass(frozen=True)
class Fitted:
    """A linear model that was fitted on the training rows, and the temperature of its confidence."""

    model: Pipeline
    temperature: float


@dataclass(frozen=True)
class Systems:
    """All that answers: what was loaded and fitted (linear models by name), and the examples that the base is shown."""

    predictor: Predictor
    challenger: Challenger
    temperature: float
    champion: Release | None
    champion_model: Pipeline | None
    linear: Mapping[str, Fitted]
    shots: tuple[Message, ...]


def load_systems(
    workspace: Workspace,
    predictor: Predictor,
    challenger: Challenger,
    train: Sequence[Example],
    held_out: Mapping[str, Sequence[Example]],
    tell: Tell,
) -> Systems:
    card = challenger.card
    champion = registry.fetch_champion(card.task, workspace.home / "releases")
    return Systems(
        predictor,
        challenger,
        _temperature(workspace, predictor, challenger, tell),
        champion,
        load_linear_model(champion.adapter, workspace.assets) if champion and champion.system == "linear" else None,
        _linear_models(workspace, train, tell) if card.kind == "classification" else {},
        _shots(workspace, predictor, challenger, train, [row for rows in held_out.values() for row in rows]),
    )


def _linear_models(workspace: Workspace, train: Sequence[Example], tell: Tell) -> dict[str, Fitted]:
    """On TF-IDF, and on embeddings too if an encoder is named: none if the rows teach them nothing."""
    params, validation = workspace.params.evaluate, read_split(workspace, "validation")
    encoders: dict[str, Encoder | None] = {"linear": None}
    if params.encoder is not None:
        encoders["embeddings"] = load_encoder(params.encoder, workspace.assets)
    fitted = {}
    for name, encoder in encoders.items():
        tell(f"{name}: fitting on {len(train)} rows")
        model = fitted_linear(train, params.seed, encoder)
        if model is not None:
            answers = answers_of(model, validation)
            fitted[name] = Fitted(model, fit_temperature(answers, [row.output for row in validation]))
    return fitted


def held_out_rows(
    workspace: Workspace, predictor: Predictor, challenger: Challenger, tell: Tell
) -> dict[str, list[Example]]:
    """The rows of each holdout that has any."""
    found = {
        holdout: _readable(predictor, challenger, read_split(workspace, holdout), holdout, tell) for holdout in HOLDOUTS
    }
    return {holdout: rows for holdout, rows in found.items() if rows}


def _temperature(workspace: Workspace, predictor: Predictor, challenger: Challenger, tell: Tell) -> float:
    """Of the challenger's confidence, from rows of the validation split, which no figure is reported on."""
    card = challenger.card
    if card.labels is None:
        return 1.0
    if powers := read_powers(challenger.adapter):
        beside = f", the linear one on embeddings beside it with {powers.linear:.2f}" if powers.linear else ""
        tell(f"challenger: its probabilities count with a power of {powers.tuned:.2f}{beside}")
        return 1.0
    rows = _readable(predictor, challenger, read_split(workspace, "validation"), "validation", lambda _: None)
    rows = rows[: workspace.params.train.validation_rows]
    tell(f"challenger: answering {len(rows)} rows of the validation split, which calibrate its confidence")
    predictor.load_adapter("challenger", challenger.adapter)
    try:
        ask = _asking(predictor, "challenger", card, card.max_new_tokens)
        answers = telling("challenger", ask, tell)(rows)
    finally:
        predictor.unload_adapter("challenger")
    return fit_temperature(answers, [row.output for row in rows])


@contextmanager
def adapters(systems: Systems) -> Iterator[dict[str, Ask]]:
    """How the champion, if there is one, and the challenger are asked, while their adapters are loaded."""
    predictor, card, champion = systems.predictor, systems.challenger.card, systems.champion
    loaded = {"challenger": systems.challenger.adapter}
    if champion is not None and champion.system == "tuned":
        loaded["champion"] = champion.adapter
    for name, folder in loaded.items():
        predictor.load_adapter(name, folder)
    try:
        asks = {"challenger": _asking(predictor, "challenger", card, card.max_new_tokens)}
        if champion is not None:
            asks = {"champion": _champion_asked(systems, champion)} | asks
        yield asks
    finally:
        for name in loaded:
            predictor.unload_adapter(name)


def _champion_asked(systems: Systems, champion: Release) -> Ask:
    model = systems.champion_model
    if model is not None:
        return lambda rows: answers_of(model, rows)
    adapter = "champion" if champion.system == "tuned" else None
    return _asking(systems.predictor, adapter, champion, systems.challenger.card.max_new_tokens)


def _asking(predictor: Predictor, adapter: str | None, version: ModelCard | Release, budget: int) -> Ask:
    def asked(rows: Sequence[Example]) -> list[Answer]:
        conversations = [conversation(version.instruction, row, version.shots) for row in rows]
        if isinstance(version, Release) and version.remote:
            return remote_answers(version, conversations, budget, Settings().remote_api_key)
        return predictor.answer(adapter, conversations, version.labels, budget, version.json_schema)

    return asked


def prompted(workspace: Workspace, systems: Systems, tell: Tell) -> dict[str, Ask]:
    """How each prompted system is asked: the champion if it is one, and the base without and with examples.

    Nothing is asked twice, not even if two of them show the same examples.
    """
    card, champion = systems.challenger.card, systems.champion
    bare = card.model_copy(update={"system": "prompted", "shots": ()})
    versions: dict[str, ModelCard | Release] = {"base": bare}
    if systems.shots:
        versions["few-shot"] = bare.model_copy(update={"shots": systems.shots})
    if champion is not None and champion.system in UNTRAINED:
        versions = {"champion": champion, **versions}

    def asked(name: str, version: ModelCard | Release) -> Ask:
        def read(row: Example) -> tuple[Message, ...]:
            return conversation(version.instruction, row, version.shots)

        settings: list[object] = [card.base_digest, card.precision, version.labels, card.max_new_tokens]
        settings += [version.json_schema, *([version.remote.model_dump()] if version.remote else [])]
        ask = _asking(systems.predictor, None, version, card.max_new_tokens)
        return remembering(workspace.home / "answers", settings, read, telling(name, ask, tell))

    return {name: asked(name, version) for name, version in versions.items()}


def _readable(
    predictor: Predictor, challenger: Challenger, rows: Sequence[Example], holdout: str, tell: Callable[[str], None]
) -> list[Example]:
    card = challenger.card
    kept = [
        row for row in rows if predictor.fits(conversation(card.instruction, row), card.labels, card.max_new_tokens)
    ]
    if len(kept) < len(rows):
        tell(f"{len(rows) - len(kept)} rows of the {holdout} holdout are left out: longer than the model can read")
    return kept


def _shots(
    workspace: Workspace,
    predictor: Predictor,
    challenger: Challenger,
    train: Sequence[Example],
    rows: Sequence[Example],
) -> tuple[Message, ...]:
    """As many examples as the model can read with the longest of the rows; () for none."""
    card, params = challenger.card, workspace.params.evaluate
    asked = [conversation(card.instruction, row) for row in rows]
    if not asked:
        return ()
    longest = rows[max(range(len(rows)), key=lambda position: sum(len(message.content) for message in asked[position]))]
    for count in range(params.few_shot_examples, 0, -1):
        shots = few_shot(train, count, params.seed)
        shown = conversation(card.instruction, longest, shots)
        if shots and predictor.fits(shown, card.labels, card.max_new_tokens):
            return shots
    return ()
