"""What the model is to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from perpetune.output_schema import schema_error
from perpetune.params.sections.kinds import Section


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
