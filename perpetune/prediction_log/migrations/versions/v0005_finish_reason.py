"""Why an answer ended, so that one that the client cut off does not count as the version's answer."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("predictions", sa.Column("finish_reason", sa.Text))


def downgrade() -> None:
    op.drop_column("predictions", "finish_reason")
