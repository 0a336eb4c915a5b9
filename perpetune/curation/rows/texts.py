"""The texts of a row: changed alike everywhere, and compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from perpetune.curation.quarantine import Changed
from perpetune.curation.rows.sources import is_traffic
from perpetune.curation.splitting.assignment_record import has_own_group
from perpetune.curation.text import fingerprint, normalised
from perpetune.records import Example, Message

Change = Callable[[str], str]


def with_inputs(row: Example, change: Change) -> Example:
    """The row with every text of its conversation changed, without what the assistant says in it.

    A group that is the hash of the input follows it, so that equal inputs are in one group. That of traffic stays: by it
    a row is in the frozen holdout, for ever.
    """
    input, messages = change(row.input), tuple(_said(turn, change, assistant=False) for turn in row.messages)
    if (input, messages) == (row.input, row.messages):
        return row
    return with_group_of(row, row.model_copy(update={"input": input, "messages": messages}))


def with_outputs(row: Example, change: Change) -> Example:
    """The row with its output, the references and what the assistant says in the conversation changed."""
    output, said = change(row.output), change(row.said) if row.said else ""
    messages = tuple(_said(turn, change, assistant=True) for turn in row.messages)
    references = tuple(each for each in dict.fromkeys(map(change, row.references)) if each != output)
    if (output, said, messages, references) == (row.output, row.said, row.messages, row.references):
        return row
    return row.model_copy(update={"output": output, "said": said, "references": references, "messages": messages})


def _said(turn: Message, change: Change, *, assistant: bool) -> Message:
    if (turn.role == "assistant") is not assistant or (content := change(turn.content)) == turn.content:
        return turn
    return turn.model_copy(update={"content": content})


def with_group_of(before: Example, after: Example) -> Example:
    """The changed row, in the group of its new input if it had no group of its own."""
    if before.input == after.input or is_traffic(before) or has_own_group(before):
        return after
    return after.model_copy(update={"group": fingerprint(normalised(after.input))})


def changes(before: Example, after: Example) -> Iterator[Changed]:
    """The texts in which two versions of a row differ."""
    old, new = dict(texts(before)), dict(texts(after))
    for field, text in old.items():
        if text != new.get(field, ""):
            yield Changed(source=before.source, id=before.id, field=field, before=text, after=new.get(field, ""))


def texts(row: Example) -> Iterator[tuple[str, str]]:
    """Each text of a row with its field; the input only once."""
    turns = row.messages
    if not (turns and turns[-1].role == "user" and turns[-1].content == row.input):
        yield "input", row.input
    yield "output", row.output
    if row.said:
        yield "said", row.said
    for number, turn in enumerate(turns):
        yield f"messages[{number}].content", turn.content
        if turn.tool_calls:
            yield f"messages[{number}].tool_calls", json.dumps(turn.tool_calls, ensure_ascii=False)
    for number, reference in enumerate(row.references):
        yield f"references[{number}]", reference
