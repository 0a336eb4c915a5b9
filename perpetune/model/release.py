"""A model version on this machine: its folder, model card and serving facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from perpetune.generation.prompt_format import PromptFormat, prompt_format
from perpetune.output_schema import to_text
from perpetune.params import BaseParams, RemoteModel
from perpetune.records import Message, Route, with_instruction

# An adapter on the base (tuned), the base with instruction and examples (prompted), logistic regression (linear), or a
# model behind an API, prompted as the base (remote).
System = Literal["tuned", "prompted", "linear", "remote"]
UNTRAINED: tuple[System, ...] = ("prompted", "remote")

CARD = "perpetune.json"
LABEL_HEAD = "label_head.safetensors"  # in the adapter's folder
POOL = "pool"  # folder of the ensemble, in the adapter's folder (perpetune.classifiers.ensemble)
EVALUATED = "evaluated.json"


class ModelCard(BaseModel):
    """The model card: what a version needs to answer besides its weights; stored in its folder as perpetune.json.

    `shots` are the few-shot examples of a prompted version, user and assistant in turn, after the instruction. Answers are
    constrained to `output_schema`, a JSON Schema. `remote` is the API of a remote version. `prompt_date` is the day that
    chat templates take for today, so that prompts are the same in training and ever after; None in versions of releases
    that did not fix it, whose prompts and answers stay as they were.
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
    prompt_date: date | None = Field(default=None, exclude_if=lambda given: given is None)

    @property
    def json_schema(self) -> str | None:
        """The schema as JSON text, as `Generation` takes it."""
        return None if self.output_schema is None else to_text(self.output_schema)

    @property
    def prompt_format(self) -> PromptFormat:
        return prompt_format(self.base.chat_template_kwargs, self.prompt_date, of_before=self.prompt_date is None)


class GoldenPrompt(BaseModel):
    """A conversation without the instruction, and the version's answer in its evaluation, for the parity check.

    `confidence` is calibrated; None for free text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[Message, ...]
    output: str
    confidence: float | None


class ServingFacts(BaseModel):
    """What serving needs from the evaluation; an artifact of the version's run.

    `temperature` calibrates the confidence in a label (Guo et al., ICML 2017): probabilities are raised to its inverse and
    normalised. The golden prompts were answered with at most `max_tokens` tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = 1.0
    golden: tuple[GoldenPrompt, ...] = ()
    max_tokens: int | None = None


@dataclass(frozen=True)
class Release:
    """A model version on this machine, ready to be served.

    It generates at most `max_new_tokens`, whatever a request allows; None for the request's limit only.
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
    prompt_date: date | None = None

    @property
    def json_schema(self) -> str | None:
        """The schema as JSON text, as `Generation` takes it."""
        return None if self.output_schema is None else to_text(self.output_schema)

    @cached_property
    def prompt_format(self) -> PromptFormat:
        return prompt_format(self.base.chat_template_kwargs, self.prompt_date, of_before=self.prompt_date is None)

    def conversation(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The version's prompt for a request or a row with these messages."""
        return with_instruction(self.instruction, messages, self.shots)


@dataclass(frozen=True)
class ServedBase:
    """The base of a gateway: sha256 of its weights, a function that counts a conversation's tokens, context length."""

    digest: str
    tokens: Callable[[Sequence[Message]], int]
    context: int


@dataclass(frozen=True)
class Trial:
    """A version on trial with the ratio `traffic_ratio` (0 to 1) of the traffic, before it may become champion."""

    version: str
    strategy: Literal["canary", "shadow"]
    traffic_ratio: float


@dataclass(frozen=True)
class DesiredReleases:
    """The versions that a gateway should load. `previous` stays loaded for a fast rollback.

    `registered` is when the model was registered (Unix ms): one that was deleted and registered again has other versions
    under the same numbers.
    """

    champion: str | None
    previous: str | None = None
    trial: Trial | None = None
    registered: int = field(default=0, compare=False)


@dataclass(frozen=True)
class RoutedRelease:
    """The release that answers a request, the route by which it was chosen, and the shadow release, if any."""

    release: Release
    route: Route
    shadow: Release | None = None


def release_of(card: ModelCard, task: str, version: str, adapter: Path, evaluated: ServingFacts) -> Release:
    """The release of a version with this card and the folder `adapter`."""
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
        card.prompt_date,
    )


def evaluated_file(system: System) -> str:
    """The artifact name of a version's serving facts; a run makes at most one version of each system."""
    return EVALUATED if system == "tuned" else f"evaluated-{system}.json"


def read_card(adapter: Path) -> ModelCard:
    return ModelCard.model_validate_json((adapter / CARD).read_text(encoding="utf-8"))
