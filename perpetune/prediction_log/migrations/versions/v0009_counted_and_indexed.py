"""What reads of a long log need: answers are counted as they come, and feedback knows its task and version.

Triggers keep both, so that they are right whoever writes: a gateway of an older perpetune that still runs, an erasure, SQL
by hand. On SQLite a later migration that makes `predictions` or `feedback` again drops their triggers, and has to make
them again too: see `create_triggers`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_CUT_OFF = "coalesce({row}.finish_reason IN ('cancelled', 'failed'), {no})"


def upgrade() -> None:
    op.create_table(
        "answer_counts",
        sa.Column("task", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("answers", sa.BigInteger, nullable=False),
        sa.Column("cut_off", sa.BigInteger, nullable=False),
    )
    for name in ("task", "version"):
        op.add_column("feedback", sa.Column(name, sa.Text))
    op.execute(
        "UPDATE feedback SET task = (SELECT task FROM predictions WHERE id = request_id), "
        "version = (SELECT version FROM predictions WHERE id = request_id)"
    )
    cut_off = _CUT_OFF.format(row="predictions", no=_no())
    op.execute(
        "INSERT INTO answer_counts SELECT task, version, count(*), "
        f"sum(CASE WHEN {cut_off} THEN 1 ELSE 0 END) FROM predictions GROUP BY task, version"
    )
    op.create_index("predictions_task_version_time", "predictions", ["task", "version", "time"])
    op.create_index("feedback_task_version_request", "feedback", ["task", "version", "request_id"])
    known = sa.text("propensity IS NOT NULL")
    op.create_index(
        "feedback_task_propensity", "feedback", ["task", "propensity"], sqlite_where=known, postgresql_where=known
    )
    create_triggers()


def downgrade() -> None:
    drop_triggers()
    for name in ("feedback_task_propensity", "feedback_task_version_request"):
        op.drop_index(name, "feedback")
    op.drop_index("predictions_task_version_time", "predictions")
    for name in ("version", "task"):
        op.drop_column("feedback", name)
    op.drop_table("answer_counts")


def create_triggers() -> None:
    for statement in _SQLITE if _is_sqlite() else _POSTGRESQL:
        op.execute(sa.text(statement))


def drop_triggers() -> None:
    if _is_sqlite():
        for name in ("count_answer", "uncount_answer", "place_feedback"):
            op.execute(f"DROP TRIGGER {name}")
        return
    for name, table in (
        ("count_answers", "predictions"),
        ("uncount_answers", "predictions"),
        ("place_feedback", "feedback"),
    ):
        op.execute(f"DROP TRIGGER {name} ON {table}")
        op.execute(f"DROP FUNCTION perpetune_{name}()")


def _is_sqlite() -> bool:
    return bool(op.get_context().dialect.name == "sqlite")


def _no() -> str:
    return "0" if _is_sqlite() else "FALSE"


_SQLITE = (
    f"""CREATE TRIGGER count_answer AFTER INSERT ON predictions BEGIN
      INSERT INTO answer_counts VALUES (NEW.task, NEW.version, 1, {_CUT_OFF.format(row="NEW", no="0")})
      ON CONFLICT (task, version) DO UPDATE
      SET answers = answers + 1, cut_off = cut_off + excluded.cut_off;
    END""",
    f"""CREATE TRIGGER uncount_answer AFTER DELETE ON predictions BEGIN
      UPDATE answer_counts SET answers = answers - 1, cut_off = cut_off - {_CUT_OFF.format(row="OLD", no="0")}
      WHERE task = OLD.task AND version = OLD.version;
      DELETE FROM answer_counts WHERE task = OLD.task AND version = OLD.version AND answers = 0;
    END""",
    """CREATE TRIGGER place_feedback AFTER INSERT ON feedback BEGIN
      UPDATE feedback SET (task, version) = (SELECT task, version FROM predictions WHERE id = NEW.request_id)
      WHERE id = NEW.id;
    END""",
)

# Once for each statement, and in the order of the key, so that two gateways that count the same versions do not wait for
# each other in a circle.
_CHANGES = """CREATE FUNCTION perpetune_{name}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO answer_counts AS known
      SELECT task, version, {sign}count(*), {sign}sum(CASE WHEN {cut_off} THEN 1 ELSE 0 END)
      FROM changed GROUP BY task, version ORDER BY task, version
      ON CONFLICT (task, version) DO UPDATE
      SET answers = known.answers + excluded.answers, cut_off = known.cut_off + excluded.cut_off;
      {then}
      RETURN NULL;
    END $$"""
_GONE = """DELETE FROM answer_counts AS known USING (SELECT DISTINCT task, version FROM changed) AS gone
      WHERE known.task = gone.task AND known.version = gone.version AND known.answers = 0;"""
_CUT_OFF_CHANGED = _CUT_OFF.format(row="changed", no="FALSE")
_POSTGRESQL = (
    _CHANGES.format(name="count_answers", sign="", cut_off=_CUT_OFF_CHANGED, then=""),
    _CHANGES.format(name="uncount_answers", sign="-", cut_off=_CUT_OFF_CHANGED, then=_GONE),
    """CREATE TRIGGER count_answers AFTER INSERT ON predictions REFERENCING NEW TABLE AS changed
      FOR EACH STATEMENT EXECUTE FUNCTION perpetune_count_answers()""",
    """CREATE TRIGGER uncount_answers AFTER DELETE ON predictions REFERENCING OLD TABLE AS changed
      FOR EACH STATEMENT EXECUTE FUNCTION perpetune_uncount_answers()""",
    """CREATE FUNCTION perpetune_place_feedback() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      SELECT task, version INTO NEW.task, NEW.version FROM predictions WHERE id = NEW.request_id;
      RETURN NEW;
    END $$""",
    """CREATE TRIGGER place_feedback BEFORE INSERT ON feedback
      FOR EACH ROW EXECUTE FUNCTION perpetune_place_feedback()""",
)
