"""The systems that are evaluated, each with the prompt and decoding with which it is or would be served."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sklearn.pipeline import Pipeline

from perpetune.classifiers.encoder import Encoder, load_encoder
from perpetune.classifiers.ensemble import read_powers
from perpetune.classifiers.linear import load_linear_model
from perpetune.classifiers.temperature import fit_temperature
from perpetune.engines.openai_api.tls import remote_tls
from perpetune.engines.remote_engine import remote_answers
from perpetune.evaluation.baselines import answers_of, fitted_linear
from perpetune.generation.answer import Answer, PromptRejected
from perpetune.inference.predictor import Predictor
from perpetune.loop.assess.answering import Log, Predict, cached, with_progress
from perpetune.loop.assess.few_shot import few_shot
from perpetune.loop.curate import HOLDOUTS, read_split
from perpetune.loop.training.fine_tune import Challenger
from perpetune.model.release import UNTRAINED, ModelCard, Release
from perpetune.records import Example, Message, conversation
from perpetune.settings import Settings
from perpetune.tracking import registry
from perpetune.workspace import Workspace


@dataclass(frozen=True)
class LinearModel:
    """A linear model fitted on the training rows, and the temperature of its confidence."""

    model: Pipeline
    temperature: float


@dataclass(frozen=True)
class Systems:
    """What answers in an evaluation: the base's answerer, challenger, champion, linear models by name, few-shot examples."""

    predictor: Predictor
    challenger: Challenger
    temperature: float
    champion: Release | None
    champion_model: Pipeline | None
    linear: Mapping[str, LinearModel]
    shots: tuple[Message, ...]


def load_systems(
    workspace: Workspace,
    predictor: Predictor,
    challenger: Challenger,
    train: Sequence[Example],
    held_out: Mapping[str, Sequence[Example]],
    log: Log,
) -> Systems:
    card = challenger.card
    champion = registry.fetch_champion(card.task, workspace.home / "releases")
    return Systems(
        predictor,
        challenger,
        _temperature(workspace, predictor, challenger, log),
        champion,
        load_linear_model(champion.adapter, workspace.assets) if champion and champion.system == "linear" else None,
        _linear_models(workspace, train, log) if card.kind == "classification" else {},
        _shots(workspace, predictor, challenger, train, [row for rows in held_out.values() for row in rows]),
    )


def _linear_models(workspace: Workspace, train: Sequence[Example], log: Log) -> dict[str, LinearModel]:
    """A linear model on TF-IDF and, if `evaluate.encoder` is set, one on embeddings; {} if the rows have one label."""
    params, validation = workspace.params.evaluate, read_split(workspace, "validation")
    encoders: dict[str, Encoder | None] = {"linear": None}
    if params.encoder is not None:
        encoders["embeddings"] = load_encoder(params.encoder, workspace.assets)
    fitted = {}
    for name, encoder in encoders.items():
        log(f"{name}: fitting on {len(train)} rows")
        model = fitted_linear(train, params.seed, encoder)
        if model is not None:
            answers = answers_of(model, validation)
            fitted[name] = LinearModel(model, fit_temperature(answers, [row.output for row in validation]))
    return fitted


def held_out_rows(
    workspace: Workspace, predictor: Predictor, challenger: Challenger, log: Log
) -> dict[str, list[Example]]:
    """The rows by holdout, without those too long for the model and without empty holdouts."""
    found = {
        holdout: _readable(predictor, challenger, read_split(workspace, holdout), holdout, log) for holdout in HOLDOUTS
    }
    return {holdout: rows for holdout, rows in found.items() if rows}


def _temperature(workspace: Workspace, predictor: Predictor, challenger: Challenger, log: Log) -> float:
    """The temperature of the challenger's confidence, fitted on the validation split."""
    card = challenger.card
    if card.labels is None:
        return 1.0
    if powers := read_powers(challenger.adapter):
        linear = f", the linear model on embeddings {powers.linear:.2f}" if powers.linear else ""
        log(f"challenger: exponent of its probabilities in the ensemble {powers.tuned:.2f}{linear}")
        return 1.0
    rows = _readable(predictor, challenger, read_split(workspace, "validation"), "validation", lambda _: None)
    rows = rows[: workspace.params.train.validation_rows]
    log(f"challenger: answering {len(rows)} rows of the validation split to calibrate its confidence")
    predictor.load_adapter("challenger", challenger.adapter)
    try:
        predict = _predictor(predictor, "challenger", card, card.max_new_tokens)
        answers = with_progress("challenger", predict, log)(rows)
    finally:
        predictor.unload_adapter("challenger")
    return fit_temperature(answers, [row.output for row in rows])


@contextmanager
def adapters(systems: Systems) -> Iterator[dict[str, Predict]]:
    """Predictors of the champion, if there is one, and the challenger; their adapters are loaded meanwhile."""
    predictor, card, champion = systems.predictor, systems.challenger.card, systems.champion
    loaded = {"challenger": systems.challenger.adapter}
    if champion is not None and champion.system == "tuned":
        loaded["champion"] = champion.adapter
    for name, folder in loaded.items():
        predictor.load_adapter(name, folder)
    try:
        predictors = {"challenger": _predictor(predictor, "challenger", card, card.max_new_tokens)}
        if champion is not None:
            predictors = {"champion": _champion_predictor(systems, champion)} | predictors
        yield predictors
    finally:
        for name in loaded:
            predictor.unload_adapter(name)


def _champion_predictor(systems: Systems, champion: Release) -> Predict:
    model = systems.champion_model
    if model is not None:
        return lambda rows: answers_of(model, rows)
    adapter = "champion" if champion.system == "tuned" else None
    return _predictor(systems.predictor, adapter, champion, systems.challenger.card.max_new_tokens)


def _predictor(predictor: Predictor, adapter: str | None, version: ModelCard | Release, max_tokens: int) -> Predict:
    def predict(rows: Sequence[Example]) -> list[Answer]:
        conversations = [conversation(version.instruction, row, version.shots) for row in rows]
        if isinstance(version, Release) and version.remote:
            return remote_answers(version, conversations, max_tokens, Settings().remote_api_key, remote_tls(Settings()))
        return predictor.answer(
            adapter,
            conversations,
            version.labels,
            max_tokens,
            version.json_schema,
            prompt_format=version.prompt_format,
            tools=[row.tools for row in rows],
        )

    return predict


def prompted_systems(workspace: Workspace, systems: Systems, log: Log) -> dict[str, Predict]:
    """Predictors of the prompted systems: the champion if it is one, and the base without and with examples.

    Answers are cached by prompt, so that equal prompts of two systems are answered once.
    """
    card, champion = systems.challenger.card, systems.champion
    bare = card.model_copy(update={"system": "prompted", "shots": ()})
    versions: dict[str, ModelCard | Release] = {"base": bare}
    if systems.shots:
        versions["few-shot"] = bare.model_copy(update={"shots": systems.shots})
    if champion is not None and champion.system in UNTRAINED:
        versions = {"champion": champion, **versions}

    def predictor(name: str, version: ModelCard | Release) -> Predict:
        def messages_of(row: Example) -> tuple[Message, ...]:
            return conversation(version.instruction, row, version.shots)

        settings: list[object] = [card.base_digest, card.precision, version.labels, card.max_new_tokens]
        settings += [version.json_schema, *([version.remote.model_dump()] if version.remote else [])]
        # The day is left out unless the prompts depend on it, so that answers are found again on another day.
        settings += [systems.predictor.chat.template(version.prompt_format)]
        predict = _predictor(systems.predictor, None, version, card.max_new_tokens)
        return cached(workspace.home / "answers", settings, messages_of, with_progress(name, predict, log))

    return {name: predictor(name, version) for name, version in versions.items()}


def _readable(
    predictor: Predictor, challenger: Challenger, rows: Sequence[Example], holdout: str, log: Log
) -> list[Example]:
    card = challenger.card
    kept = [
        row
        for row in rows
        if predictor.fits(
            conversation(card.instruction, row), card.labels, card.max_new_tokens, card.prompt_format, row.tools
        )
    ]
    if len(kept) < len(rows):
        log(f"{len(rows) - len(kept)} rows of the {holdout} holdout are skipped: longer than the model's context")
    return kept


def _shots(
    workspace: Workspace,
    predictor: Predictor,
    challenger: Challenger,
    train: Sequence[Example],
    rows: Sequence[Example],
) -> tuple[Message, ...]:
    """As many few-shot examples as fit into the context with the longest of the rows; () if none fits.

    There are none if the chat template rejects earlier turns.
    """
    card, params = challenger.card, workspace.params.evaluate
    prompts = [conversation(card.instruction, row) for row in rows]
    if not prompts:
        return ()
    longest = rows[max(range(len(rows)), key=lambda row: sum(len(message.content) for message in prompts[row]))]
    for count in range(params.few_shot_examples, 0, -1):
        shots = few_shot(train, count, params.seed)
        prompt = conversation(card.instruction, longest, shots)
        try:
            if shots and predictor.fits(prompt, card.labels, card.max_new_tokens, card.prompt_format):
                return shots
        except PromptRejected:
            return ()
    return ()
