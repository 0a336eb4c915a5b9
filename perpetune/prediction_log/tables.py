"""The tables of the prediction log; `migrations/` creates them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
)

from perpetune.prediction_log.storable import storable

# Not `alembic_version`, which MLflow's server uses in a database that it may share.
VERSION_TABLE = "perpetune_log_version"


class UtcTime(TypeDecorator[datetime]):
    """A timezone-aware time, stored in UTC: SQLite has no offsets and compares times as text."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class StorableText(TypeDecorator[str]):
    """Text with unstorable characters replaced (see `storable`)."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return storable(value) if value else value


def _of_a_request() -> tuple[Column[Any], ...]:
    """The columns of every request, answered or failed."""
    return (
        Column("id", StorableText, primary_key=True),
        Column("time", UtcTime, nullable=False),
        Column("task", StorableText, nullable=False),
        Column("version", StorableText, nullable=False),
        Column("latency_ms", Double, nullable=False),
    )


metadata = MetaData()

predictions = Table(
    "predictions",
    metadata,
    *_of_a_request(),
    Column("messages", JSON, nullable=False),
    Column("input", StorableText, nullable=False),
    Column("output", StorableText, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("confidence", Double),
    Column("group", StorableText),
    Column("route", StorableText, nullable=False, server_default="champion"),
    Column("finish_reason", StorableText),
    Column("client_id", StorableText),  # the id that the client gave to its request
    Column("other_outputs", JSON(none_as_null=True)),  # of the further answers, if n was above 1
    Column("likelihood", Double),  # geometric mean of the probabilities of the tokens of free text
    Index("predictions_task_time", "task", "time"),
    Index("predictions_task_version_time", "task", "version", "time"),
    Index("predictions_client_id", "client_id"),
)

# Counted by triggers of `predictions` (see the migration 0009), because counting millions of rows takes seconds.
answer_counts = Table(
    "answer_counts",
    metadata,
    Column("task", StorableText, primary_key=True),
    Column("version", StorableText, primary_key=True),
    Column("answers", BigInteger, nullable=False),
    Column("cut_off", BigInteger, nullable=False),  # of these answers, those that ended early
)

shadows = Table(
    "shadows",
    metadata,
    Column("request_id", StorableText, ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True),
    Column("version", StorableText, primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("task", StorableText, nullable=False),
    Column("output", StorableText, nullable=False),
    Column("latency_ms", Double, nullable=False),
    Column("confidence", Double),
    Column("error", StorableText),
)

failures = Table(
    "failures",
    metadata,
    *_of_a_request(),
    Column("route", StorableText, nullable=False),
    Column("code", StorableText, nullable=False),
    Index("failures_task_time", "task", "time"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("request_id", StorableText, ForeignKey("predictions.id", ondelete="CASCADE"), nullable=False),
    Column("time", UtcTime, nullable=False),
    Column("label", StorableText),
    Column("score", Double),
    Column("comment", StorableText),
    # A digest of label, score, comment and time: a unique index over the columns would treat NULLs as distinct.
    Column("digest", StorableText, nullable=False),
    Column("choice", Integer, nullable=False, server_default="0"),  # the number of the answer, if n was above 1
    Column("propensity", Double),  # of a request that the client drew by a lot of its own
    # Those of its prediction; a trigger fills them in, so that labels are found without reading all predictions.
    Column("task", StorableText),
    Column("version", StorableText),
    Index("feedback_request_digest", "request_id", "digest", unique=True),
    Index("feedback_task_version_request", "task", "version", "request_id"),
    Index(
        "feedback_task_propensity",
        "task",
        "propensity",
        sqlite_where=text("propensity IS NOT NULL"),
        postgresql_where=text("propensity IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

label_requests = Table(
    "label_requests",
    metadata,
    Column("request_id", StorableText, ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("why", StorableText, nullable=False),
    Column("propensity", Double),  # the probability with which it was drawn; NULL if it was not by chance
    Column("weight", Double),  # what its label counts in a mean over the requests that it was drawn from; NULL: nothing
    Column("urgent", Boolean, nullable=False, server_default=false()),
    # Those of its prediction; a trigger fills them in.
    Column("task", StorableText),
    Column("version", StorableText),
    Index("label_requests_task_version_request", "task", "version", "request_id"),
)

admitted_labels = Table(
    "admitted_labels",
    metadata,
    # Labels that judge the version that answered, in the order in which checks took them up.
    Column("number", Integer, primary_key=True),
    Column("request_id", StorableText, ForeignKey("predictions.id", ondelete="CASCADE"), nullable=False, unique=True),
    Column("weight", Double, nullable=False),
    sqlite_autoincrement=True,
)

label_draws = Table(
    "label_draws",
    metadata,
    Column("request_id", StorableText, ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True),
    Column("undrawn", Double, nullable=False),  # the probability that no draw for doubt has drawn it
)

embeddings = Table(
    "embeddings",
    metadata,
    Column("request_id", StorableText, ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True),
    Column("encoder", StorableText, nullable=False),  # the first 16 hex digits of the sha256 of its weights
    Column("vector", LargeBinary, nullable=False),  # a signed byte for each coordinate
)

answer_values = Table(
    "answer_values",
    metadata,
    Column("request_id", StorableText, ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True),
    Column("method", StorableText, primary_key=True),  # judge or self-consistency
    Column("settings", StorableText, nullable=False),  # a digest: values of other settings are not comparable
    Column("value", Double),  # 0 to 1; NULL: the reply had none
)

estimate_costs = Table(
    "estimate_costs",
    metadata,
    Column("task", StorableText, primary_key=True),
    Column("method", StorableText, primary_key=True),
    Column("time", UtcTime, primary_key=True),
    Column("requests", Integer, nullable=False),
    Column("dollars", Double, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("name", StorableText, primary_key=True),
    Column("digest", StorableText, nullable=False, unique=True),  # SHA-256 in hex; the key itself is not stored
    Column("roles", JSON, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("revoked", UtcTime),
    Column("tasks", JSON(none_as_null=True)),  # for which it may be used; NULL: for all
)

# Appended only: triggers refuse the rest. `once` is the key of an event that may be repeated.
audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("time", UtcTime, nullable=False),
    Column("actor", StorableText, nullable=False),
    Column("action", StorableText, nullable=False),
    Column("subject", StorableText, nullable=False),
    Column("details", JSON, nullable=False),
    Column("previous", StorableText, nullable=False),  # SHA-256 in hex of the entry before
    Column("digest", StorableText, nullable=False),
    Column("once", StorableText, unique=True),
)
