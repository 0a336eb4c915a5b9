"""A model version on this machine: the adapter's folder and the card that tells how to use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from perpetune.output_schema import to_text
from perpetune.params import BaseParams, RemoteModel
from perpetune.records import Message, Route, with_instruction

# How a version answers: an adapter on the base (tuned), the base with an instruction and maybe examples (prompted),
# logistic regression (linear), or a model that somebody else serves, prompted as the base is (remote).
System = Literal["tuned", "prompted", "linear", "remote"]
UNTRAINED: tuple[System, ...] = ("prompted", "remote")

CARD = "perpetune.json"
LABEL_HEAD = "label_head.safetensors"  # beside an adapter that learned its labels by one
POOL = "pool"  # a folder beside it: what it is pooled with (perpetune.classifiers.ensemble)
EVALUATED = "evaluated.json"


class ModelCard(BaseModel):
    """What a version needs beside its weights to answer; travels in the version's folder.

    `shots` are the examples of a prompted version, user and assistant in turn; they stand behind the instruction.
    Answers are constrained to `output_schema`, a JSON Schema. `remote` is where the model of a remote version answers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    kind: Literal["classification", "generation"]
    instruction: str
    labels: tuple[str, ...] | None
    base: BaseParams
    base_digest: str
    precision: Literal["auto", "fp32", "bf16"]
    max_new_tokens: int
    system: System = "tuned"
    shots: tuple[Message, ...] = ()
    output_schema: dict[str, Any] | None = None
    remote: RemoteModel | None = None

    @property
    def json_schema(self) -> str | None:
        """The schema as text, as `Generation` takes it."""
        return None if self.output_schema is None else to_text(self.output_schema)


class GoldenPrompt(BaseModel):
    """A conversation, without the instruction, and what the model answered to it when it was evaluated.

    `confidence` is the calibrated one; None for free text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[Message, ...]
    output: str
    confidence: float | None


class ServingFacts(BaseModel):
    """What evaluation found out that serving needs; an artifact of the version's run.

    `temperature` calibrates the confidence in a label (Guo et al., ICML 2017): probabilities are raised to its
    inverse and normalised again. The golden prompts were answered with up to `max_tokens`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = 1.0
    golden: tuple[GoldenPrompt, ...] = ()
    max_tokens: int | None = None


@dataclass(frozen=True)
class Release:
    """One model version on this machine, ready to be served.

    It writes no more than `max_new_tokens`, whatever a request allows; None leaves that to the request.
    """

    task: str
    version: str
    adapter: Path
    instruction: str
    labels: tuple[str, ...] | None
    base: BaseParams
    evaluated: ServingFacts = field(default_factory=ServingFacts)
    system: System = "tuned"
    shots: tuple[Message, ...] = ()
    output_schema: dict[str, Any] | None = None
    max_new_tokens: int | None = None
    remote: RemoteModel | None = None

    @property
    def json_schema(self) -> str | None:
        """The schema as text, as `Generation` takes it."""
        return None if self.output_schema is None else to_text(self.output_schema)

    def conversation(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """What the version reads for a request or a row with these messages."""
        return with_instruction(self.instruction, messages, self.shots)


@dataclass(frozen=True)
class ServedBase:
    """The base that a gateway serves: sha256 of its weights, tokens of a conversation (or a bound), and its context."""

    digest: str
    tokens: Callable[[Sequence[Message]], int]
    context: int


@dataclass(frozen=True)
class Trial:
    """A version that is tried on a share of the traffic before it may become champion."""

    version: str
    strategy: Literal["canary", "shadow"]
    share: float


@dataclass(frozen=True)
class DesiredReleases:
    """What the registry says should be loaded. `previous` stays loaded, so that going back to it takes no time."""

    champion: str | None
    previous: str | None = None
    trial: Trial | None = None


@dataclass(frozen=True)
class RoutedRelease:
    """The release that answers a request, why it is that one, and one that answers beside it unseen."""

    release: Release
    route: Route
    shadow: Release | None = None


def release_of(card: ModelCard, task: str, version: str, adapter: Path, evaluated: ServingFacts) -> Release:
    """The version whose folder `adapter` holds this card."""
    return Release(
        task,
        version,
        adapter,
        card.instruction,
        card.labels,
        card.base,
        evaluated,
        card.system,
        card.shots,
        card.output_schema,
        card.max_new_tokens,
        card.remote,
    )


def evaluated_file(system: System) -> str:
    """The artifact that holds what was found out of a version: a run makes at most one version of each system."""
    return EVALUATED if system == "tuned" else f"evaluated-{system}.json"


def read_card(adapter: Path) -> ModelCard:
    return ModelCard.model_validate_json((adapter / CARD).read_text(encoding="utf-8"))
