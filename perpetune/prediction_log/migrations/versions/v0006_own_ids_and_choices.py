"""A client's own id and the further answers of a request; the answer that feedback is about."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("predictions", sa.Column("client_id", sa.Text))
    op.add_column("predictions", sa.Column("other_outputs", sa.JSON))
    op.create_index("predictions_client_id", "predictions", ["client_id"])
    op.add_column("feedback", sa.Column("choice", sa.Integer, nullable=False, server_default="0"))
    if op.get_context().dialect.name == "sqlite":
        # Without AUTOINCREMENT, SQLite gives the id of a deleted row to the next one, and the newest row is no longer
        # the one with the highest id that was ever read.
        with op.batch_alter_table("feedback", recreate="always", table_kwargs={"sqlite_autoincrement": True}):
            pass


def downgrade() -> None:
    op.drop_column("feedback", "choice")
    op.drop_index("predictions_client_id", "predictions")
    op.drop_column("predictions", "other_outputs")
    op.drop_column("predictions", "client_id")
