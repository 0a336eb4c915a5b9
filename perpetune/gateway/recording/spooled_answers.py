"""Answers whose rows are still in the spool, by their id and by the client's own."""

from __future__ import annotations

from collections import Counter

from perpetune.records import Feedback, Prediction


class SpooledAnswers:
    """Counts the rows of each answer in the spool: its prediction and feedback on it. For one thread at a time."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._ids: dict[str, str] = {}  # from the client's own id to that of the answer
        self._choices: dict[str, int] = {}  # if more than one

    def find(self, request_id: str) -> tuple[str, int] | None:
        """The answer's id and how many answers its request got, if it has rows in the spool.

        A client's own id names its newest request.
        """
        answer = request_id if request_id in self._rows else self._ids.get(request_id)
        return (answer, self._choices.get(answer, 1)) if answer is not None and answer in self._rows else None

    def count(self, row: Prediction | Feedback, by: int) -> None:
        """Add a row (`by` 1), or remove one (-1)."""
        answer = row.id if isinstance(row, Prediction) else row.request_id
        if isinstance(row, Prediction) and by > 0:
            self._add(row)
        self._rows[answer] += by
        if self._rows[answer] <= 0:
            del self._rows[answer]
            self._choices.pop(answer, None)
        if isinstance(row, Prediction) and by < 0 and self._ids.get(row.client_id or "") == answer:
            del self._ids[row.client_id or ""]

    def _add(self, row: Prediction) -> None:
        if row.client_id:
            self._ids[row.client_id] = row.id
        if row.other_outputs:
            self._choices[row.id] = 1 + len(row.other_outputs)
