"""The route of a prediction; tables of shadow answers and of failures."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("predictions", sa.Column("route", sa.Text, nullable=False, server_default="champion"))
    op.create_table(
        "shadows",
        sa.Column("request_id", sa.Text, sa.ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=False),
        sa.Column("latency_ms", sa.Double, nullable=False),
        sa.Column("confidence", sa.Double),
        sa.Column("error", sa.Text),
    )
    op.create_table(
        "failures",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("latency_ms", sa.Double, nullable=False),
    )
    op.create_index("failures_task_time", "failures", ["task", "time"])


def downgrade() -> None:
    op.drop_table("failures")
    op.drop_table("shadows")
    op.drop_column("predictions", "route")
