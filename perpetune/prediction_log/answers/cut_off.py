"""Streamed answers that ended early: what was sent of them is in the log, but it is not the version's answer."""

from __future__ import annotations

from sqlalchemy import ColumnElement, or_

from perpetune.prediction_log.tables import predictions
from perpetune.records import CUT_OFF


def is_whole() -> ColumnElement[bool]:
    """Whether the version said all that it had to say. Rows of before this was recorded are whole."""
    reason = predictions.c.finish_reason
    return or_(reason.is_(None), reason.not_in(CUT_OFF))
