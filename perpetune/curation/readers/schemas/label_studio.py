"""Exports of Label Studio: JSON (tasks with annotations), JSON-MIN and CSV.

https://labelstud.io/guide/task_format
"""

from __future__ import annotations

from collections.abc import Mapping

from perpetune.curation.readers.row import InvalidRow, is_absent
from perpetune.curation.readers.schemas.annotated import answer_to, majority, shown_text
from perpetune.curation.readers.schemas.messages import exchange, parsed
from perpetune.curation.readers.schemas.schema import OUTPUT_NAMES, Converted, Schema, Values, converted

_TYPES = ("choices", "text", "rating", "number", "taxonomy")
"""Kinds of results that can be an answer, by the key of their value; spans cannot."""

_BOOKKEEPING = frozenset({"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"})


def _task(values: Values) -> Converted:
    data = values["data"]
    _, text = shown_text(data if isinstance(data, Mapping) else {}, "data")
    key = "annotations" if "annotations" in values else "completions"
    annotations = [each for each in _list(values.get(key)) if isinstance(each, Mapping) and _counts(each)]
    certain = [each for each in annotations if each.get("ground_truth")] or annotations
    new = exchange(text, majority([_answer(each) for each in certain], key))
    new["time"] = max((str(each["updated_at"]) for each in certain if each.get("updated_at")), default=None)
    return converted(values, new, "data", key)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _counts(annotation: Mapping[str, object]) -> bool:
    return not annotation.get("was_cancelled") and bool(annotation.get("result"))


def _answer(annotation: Mapping[str, object]) -> object:
    results = [each for each in _list(annotation["result"]) if isinstance(each, Mapping) and "from_name" in each]
    return answer_to({str(each["from_name"]): _value(each) for each in results})


def _value(result: Mapping[str, object]) -> object:
    value = result.get("value")
    kind = next((kind for kind in _TYPES if isinstance(value, Mapping) and kind in value), None)
    if kind is None or not isinstance(value, Mapping) or "start" in value:
        raise InvalidRow("annotations", f"{result.get('type')} of {result.get('from_name')} is no answer in text")
    return _single(value[kind])


def _single(value: object) -> object:
    return _single(value[0]) if isinstance(value, list) and len(value) == 1 else value


def _flat(values: Values) -> Converted:
    """JSON-MIN and CSV have the task's fields and the answers side by side; the text comes first."""
    fields = {name: value for name, value in values.items() if name not in _BOOKKEEPING and not is_absent(value)}
    output = next((name for name in OUTPUT_NAMES if name in fields), None)
    if output is None:
        output = list(fields)[-1] if len(fields) == 2 else None
    if output is None:
        names = ", ".join(list(fields)[:6])
        raise InvalidRow(
            None, f"which column is the answer? There are: {names}; say --map input=NAME --map output=NAME"
        )
    name, text = shown_text({key: value for key, value in fields.items() if key != output}, "data")
    answer = parsed(fields[output])
    answer = _single(answer["choices"]) if isinstance(answer, Mapping) and "choices" in answer else _single(answer)
    new = {**exchange(text, answer), "time": values.get("updated_at")}
    return converted(values, new, name, output, "updated_at")


LABEL_STUDIO = Schema(
    "Label Studio",
    frozenset({"data", "annotations", "completions"}),
    lambda values: isinstance(values.get("data"), Mapping) and ("annotations" in values or "completions" in values),
    _task,
)
LABEL_STUDIO_FLAT = Schema(
    "Label Studio (JSON-MIN or CSV)",
    _BOOKKEEPING,
    lambda values: {"annotator", "annotation_id", "lead_time"} <= values.keys(),
    _flat,
)
