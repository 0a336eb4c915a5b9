"""What people are shown, and what they said."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from perpetune.records import Example

Kind = Literal["request", "row", "new"]
"""A request of the prediction log, a row that has a label, or one without."""


class Suggestion(BaseModel):
    """What an annotator starts from: a label or text, and how probable it is (0 to 1)."""

    model_config = ConfigDict(frozen=True)

    label: str
    score: float | None = None


class Subject(BaseModel):
    """Which row a person is asked about, as it travels with the task: the annotation tool gives it back unchanged.

    `label` is the one that the row has; `row` is the whole row if it is in no file of the workspace.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    id: str
    source: str = ""
    label: str | None = None
    row: Example | None = None

    @property
    def key(self) -> str:
        """The same for the same question: a row that has another label now is asked about again."""
        return ":".join((self.kind, self.source, self.id, self.label or ""))


class AnnotationTask(BaseModel):
    """A row to annotate: its subject, the text that is shown, why it is worth a look, and perhaps a suggestion."""

    model_config = ConfigDict(frozen=True)

    subject: Subject
    text: str
    why: str
    suggestion: Suggestion | None = None


class Annotation(BaseModel):
    """What one person said of a subject, and when; `is_final` if somebody marked it as the truth."""

    model_config = ConfigDict(frozen=True)

    subject: Subject
    text: str
    label: str
    annotator: str
    time: AwareDatetime | None = None
    is_final: bool = False
