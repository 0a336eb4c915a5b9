"""Tables of predictions and of feedback."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "predictions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("messages", sa.JSON, nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=False),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("completion_tokens", sa.Integer, nullable=False),
        sa.Column("latency_ms", sa.Double, nullable=False),
        sa.Column("confidence", sa.Double),
        sa.Column("group", sa.Text),
    )
    op.create_index("predictions_task_time", "predictions", ["task", "time"])
    op.create_table(
        "feedback",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("request_id", sa.Text, sa.ForeignKey("predictions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("score", sa.Double),
        sa.Column("comment", sa.Text),
        sa.Column("digest", sa.Text, nullable=False),
    )
    op.create_index("feedback_request_digest", "feedback", ["request_id", "digest"], unique=True)


def downgrade() -> None:
    op.drop_table("feedback")
    op.drop_table("predictions")
