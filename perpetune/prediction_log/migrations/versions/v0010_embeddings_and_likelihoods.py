"""Embeddings of inputs, and likelihoods of answers."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("predictions", sa.Column("likelihood", sa.Double))
    op.create_table(
        "embeddings",
        sa.Column("request_id", sa.Text, sa.ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("encoder", sa.Text, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("embeddings")
    op.drop_column("predictions", "likelihood")
