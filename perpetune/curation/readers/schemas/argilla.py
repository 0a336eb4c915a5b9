"""Exports of Argilla: records as JSON, and as data sets with one column for each part of a question.

https://docs.argilla.io/latest/how_to_guides/import_export/ . Only submitted responses count; suggestions are a model's.
"""

from __future__ import annotations

from collections.abc import Mapping

from perpetune.curation.readers.row import InvalidRow
from perpetune.curation.readers.schemas.annotated import answer_to, majority, shown_text
from perpetune.curation.readers.schemas.messages import exchange
from perpetune.curation.readers.schemas.schema import Converted, Schema, Values, converted, has

_RESPONSES = ".responses"
_BOOKKEEPING = frozenset({"id", "status", "_server_id", "inserted_at", "updated_at"})


def _record(values: Values) -> Converted:
    fields = values["fields"]
    _, text = shown_text(fields if isinstance(fields, Mapping) else {}, "fields")
    responses = _by_question(values["responses"])
    if not responses:
        raise InvalidRow("responses", "nobody has annotated it")
    answers = {name: majority(given, f"responses.{name}") for name, given in responses.items()}
    return converted(values, exchange(text, answer_to(answers)), "fields", "responses")


def _by_question(responses: object) -> dict[str, list[object]]:
    """The submitted answers by question: of `{question: [{value}]}`, or of one object with `values` for each user."""
    found: dict[str, list[object]] = {}
    if isinstance(responses, Mapping):
        for name, given in responses.items():
            if isinstance(given, list):
                found[str(name)] = [each["value"] for each in given if _submitted(each) and "value" in each]
    elif isinstance(responses, list):
        for user in responses:
            values = user.get("values") if _submitted(user) else None
            for name, each in (values if isinstance(values, Mapping) else {}).items():
                found.setdefault(str(name), []).append(each.get("value") if isinstance(each, Mapping) else each)
    return {name: given for name, given in found.items() if given}


def _submitted(response: object) -> bool:
    return isinstance(response, Mapping) and response.get("status", "submitted") == "submitted"


def _columns(values: Values) -> Converted:
    questions = [name.removesuffix(_RESPONSES) for name in values if name.endswith(_RESPONSES)]
    given = {name: _submitted_of(values, name) for name in questions}
    filled = {name: answers for name, answers in given.items() if answers}
    if not filled:
        raise InvalidRow(f"{questions[0]}{_RESPONSES}", "nobody has annotated it")
    answers = {name: majority(each, f"{name}{_RESPONSES}") for name, each in filled.items()}
    fields = {name: value for name, value in values.items() if "." not in name and name not in _BOOKKEEPING}
    name, text = shown_text(fields, "fields")
    used = [f"{question}{_RESPONSES}{part}" for question in filled for part in ("", ".status")]
    return converted(values, exchange(text, answer_to(answers)), name, *used)


def _submitted_of(values: Values, question: str) -> list[object]:
    answers, statuses = values[f"{question}{_RESPONSES}"], values.get(f"{question}{_RESPONSES}.status")
    given = answers if isinstance(answers, list) else []
    if not isinstance(statuses, list) or len(statuses) != len(given):
        return given
    return [answer for answer, status in zip(given, statuses, strict=True) if status == "submitted"]


def _classic(values: Values) -> Converted:
    """Argilla 1: text classification and text to text."""
    asked = values.get("inputs", values.get("text"))
    _, text = shown_text(asked if isinstance(asked, Mapping) else {"text": asked}, "inputs")
    if values.get("status") == "Discarded":
        raise InvalidRow("status", "Discarded")
    if not has(values, "annotation"):
        raise InvalidRow("annotation", "nobody has annotated it")
    return converted(values, exchange(text, values["annotation"]), "inputs", "text", "annotation", "status")


ARGILLA = Schema(
    "Argilla",
    frozenset({"fields", "responses"}),
    lambda values: isinstance(values.get("fields"), Mapping) and "responses" in values,
    _record,
)
ARGILLA_COLUMNS = Schema(
    "Argilla (columns)",
    frozenset({"status"}),
    lambda values: any(name.endswith(_RESPONSES) for name in values),
    _columns,
)
ARGILLA_CLASSIC = Schema(
    "Argilla 1",
    frozenset({"inputs", "text", "annotation", "status"}),
    lambda values: "annotation" in values and "status" in values and ("text" in values or "inputs" in values),
    _classic,
)
