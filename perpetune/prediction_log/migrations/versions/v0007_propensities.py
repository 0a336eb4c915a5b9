"""How the requests to label were chosen: their propensity, and what their label counts.

Requests drawn at random before had one propensity each check, which was not stored: their labels count alike. Those
chosen for doubt were the most doubtful and not a sample: they have no weight, and judge nothing, as before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

RENAMED = {"random": "lot", "uncertain": "doubt"}
OLDER = {"lot": "random", "doubt": "uncertain", "disagreement": "uncertain"}

_requests = sa.table("label_requests", sa.column("why", sa.Text), sa.column("weight", sa.Double))


def upgrade() -> None:
    op.add_column("label_requests", sa.Column("propensity", sa.Double))
    op.add_column("label_requests", sa.Column("weight", sa.Double))
    op.add_column("label_requests", sa.Column("urgent", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("feedback", sa.Column("propensity", sa.Double))
    op.create_table(
        "label_draws",
        sa.Column("request_id", sa.Text, sa.ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("undrawn", sa.Double, nullable=False),
    )
    _rename(RENAMED)
    op.execute(_requests.update().where(_requests.c.why == "lot").values(weight=1.0))


def downgrade() -> None:
    _rename(OLDER)
    op.drop_table("label_draws")
    op.drop_column("feedback", "propensity")
    for name in ("urgent", "weight", "propensity"):
        op.drop_column("label_requests", name)


def _rename(reasons: dict[str, str]) -> None:
    for old, new in reasons.items():
        op.execute(_requests.update().where(_requests.c.why == old).values(why=new))
