"""How the requests to label were chosen: their propensity, and what their label counts.

Requests drawn at random before had one propensity each check, which was not stored: their labels count alike. Those
chosen for doubt were the most doubtful and not a sample: they have no weight, and judge nothing, as before.

Labels that checks have taken up so far keep their numbers, so that a check goes on after the last one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

RENAMED = {"random": "lot", "uncertain": "doubt"}
OLDER = {"lot": "random", "doubt": "uncertain", "disagreement": "uncertain"}

_requests = sa.table(
    "label_requests", sa.column("request_id", sa.Text), sa.column("why", sa.Text), sa.column("weight", sa.Double)
)
_feedback = sa.table(
    "feedback", sa.column("id", sa.Integer), sa.column("request_id", sa.Text), sa.column("label", sa.Text)
)
_admitted = sa.table(
    "admitted_labels", sa.column("number", sa.Integer), sa.column("request_id", sa.Text), sa.column("weight", sa.Double)
)


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
    op.create_table(
        "admitted_labels",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column(
            "request_id", sa.Text, sa.ForeignKey("predictions.id", ondelete="CASCADE"), nullable=False, unique=True
        ),
        sa.Column("weight", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    _rename(RENAMED)
    op.execute(_requests.update().where(_requests.c.why == "lot").values(weight=1.0))
    _admit_known()


def _admit_known() -> None:
    """Labels of before are admitted under the id of their first feedback, which earlier checks went by."""
    first = sa.select(sa.func.min(_feedback.c.id), _feedback.c.request_id, sa.literal(1.0))
    first = first.where(_feedback.c.label.is_not(None)).group_by(_feedback.c.request_id)
    in_doubt = sa.select(_requests.c.request_id).where(_requests.c.why == "doubt")
    first = first.where(_feedback.c.request_id.not_in(in_doubt))
    op.execute(_admitted.insert().from_select(["number", "request_id", "weight"], first))
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            "SELECT setval(pg_get_serial_sequence('admitted_labels', 'number'), "
            "greatest((SELECT max(number) FROM admitted_labels), 1))"
        )


def downgrade() -> None:
    _rename(OLDER)
    op.drop_table("label_draws")
    op.drop_table("admitted_labels")
    op.drop_column("feedback", "propensity")
    for name in ("urgent", "weight", "propensity"):
        op.drop_column("label_requests", name)


def _rename(reasons: dict[str, str]) -> None:
    for old, new in reasons.items():
        op.execute(_requests.update().where(_requests.c.why == old).values(why=new))
