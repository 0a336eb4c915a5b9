"""Keys that may be used for some tasks only."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("tasks", sa.JSON))


def downgrade() -> None:
    # Without the column they would be for all tasks. Not deleted: a gateway without any key is open.
    op.execute("UPDATE api_keys SET revoked = CURRENT_TIMESTAMP WHERE tasks IS NOT NULL AND revoked IS NULL")
    op.drop_column("api_keys", "tasks")
