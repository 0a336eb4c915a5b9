"""Label Studio's formats: the labelling configuration, tasks with predictions, and exported annotations.

https://labelstud.io/tags/ , https://labelstud.io/guide/task_format
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from pydantic import ValidationError

from perpetune.annotation.records import Annotation, AnnotationTask, Subject
from perpetune.curation.readers.row import InvalidRow, time_of

SUBJECT, SHOWN, ANSWER = "perpetune", "input", "answer"
MODEL = "perpetune"


def labelling_config(labels: Sequence[str] | None) -> str:
    """The configuration of a project: one of the labels, or free text without any."""
    choices = "\n".join(f"    <Choice value={quoteattr(label)}/>" for label in labels or ())
    answer = (
        f'  <Choices name="{ANSWER}" toName="{SHOWN}" choice="single" required="true" showInline="true">\n'
        f"{choices}\n  </Choices>"
        if labels
        else f'  <TextArea name="{ANSWER}" toName="{SHOWN}" rows="6" maxSubmissions="1" editable="true" required="true"/>'
    )
    return f'<View>\n  <Header value="$why" size="5"/>\n  <Text name="{SHOWN}" value="${SHOWN}"/>\n{answer}\n</View>\n'


def offers(config: str, labels: Sequence[str] | None) -> bool:
    """Whether a project's configuration, which a team may have changed, asks for our answer and offers these labels."""
    try:
        root = ElementTree.fromstring(config)
    except ElementTree.ParseError:
        return False
    if not any(each.get("name") == ANSWER for each in root.iter()):
        return False
    return {each.get("value") for each in root.iter("Choice")} >= set(labels or ())


def task_of(task: AnnotationTask, *, labelled: bool) -> dict[str, Any]:
    """The task as it is imported, with the suggestion as a prediction."""
    subject = task.subject.model_dump(mode="json", exclude_defaults=True)
    found: dict[str, Any] = {"data": {SHOWN: task.text, "why": task.why, SUBJECT: subject}}
    if task.suggestion:
        result = _result(task.suggestion.label, labelled=labelled)
        score = {} if task.suggestion.score is None else {"score": task.suggestion.score}
        found["predictions"] = [{"model_version": MODEL, "result": [result], **score}]
    return found


def _result(label: str, *, labelled: bool) -> dict[str, Any]:
    kind, value = ("choices", {"choices": [label]}) if labelled else ("textarea", {"text": [label]})
    return {"id": ANSWER, "from_name": ANSWER, "to_name": SHOWN, "type": kind, "value": value}


def subject_of(task: Mapping[str, Any]) -> Subject | None:
    """The subject of a task; None if it is not ours."""
    try:
        return Subject.model_validate(task["data"][SUBJECT])
    except (KeyError, TypeError, ValidationError):
        return None


def annotations_of(task: Mapping[str, Any], people: Mapping[int, str]) -> Iterator[Annotation]:
    """The annotations of an exported task; skipped and empty ones are left out, and so are tasks that are not ours."""
    subject = subject_of(task)
    if subject is None:
        return
    for each in task.get("annotations") or ():
        label = _answer(each)
        if label is not None and not each.get("was_cancelled"):
            yield Annotation(
                subject=subject,
                text=str(task["data"].get(SHOWN, "")),
                label=label,
                annotator=_person(each.get("completed_by"), people),
                time=_time(each),
                is_final=bool(each.get("ground_truth")),
            )


def _answer(annotation: Mapping[str, Any]) -> str | None:
    for result in annotation.get("result") or ():
        value = result.get("value", {})
        given = value.get("choices", value.get("text"))
        text = given[-1] if isinstance(given, list) and given else given
        if isinstance(text, str) and text.strip():
            return text.strip()
    return None


def _time(annotation: Mapping[str, Any]) -> Any:
    try:
        return time_of(annotation, "updated_at") or time_of(annotation, "created_at")
    except InvalidRow:
        return None


def _person(completed_by: object, people: Mapping[int, str]) -> str:
    """The address of who annotated: exports have a number, or an object."""
    if isinstance(completed_by, Mapping):
        return str(completed_by.get("email") or completed_by.get("id"))
    return people.get(completed_by, str(completed_by)) if isinstance(completed_by, int) else str(completed_by)
