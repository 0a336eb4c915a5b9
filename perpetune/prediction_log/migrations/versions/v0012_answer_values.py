"""Values of answers without labels, and what they cost."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "answer_values",
        sa.Column("request_id", sa.Text, sa.ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("method", sa.Text, primary_key=True),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("value", sa.Double),
    )
    op.create_table(
        "estimate_costs",
        sa.Column("task", sa.Text, primary_key=True),
        sa.Column("method", sa.Text, primary_key=True),
        sa.Column("time", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("dollars", sa.Double, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("estimate_costs")
    op.drop_table("answer_values")
