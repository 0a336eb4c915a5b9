"""Label requests know their task and version, as feedback does, so that a version's are found without reading all others.

A trigger fills them in, whoever writes. On SQLite a later migration that makes `label_requests` again has to make its trigger
again too.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_SQLITE = """CREATE TRIGGER place_label_request AFTER INSERT ON label_requests BEGIN
  UPDATE label_requests SET (task, version) = (SELECT task, version FROM predictions WHERE id = NEW.request_id)
  WHERE request_id = NEW.request_id;
END"""
_POSTGRESQL = (
    """CREATE FUNCTION perpetune_place_label_request() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      SELECT task, version INTO NEW.task, NEW.version FROM predictions WHERE id = NEW.request_id;
      RETURN NEW;
    END $$""",
    """CREATE TRIGGER place_label_request BEFORE INSERT ON label_requests
      FOR EACH ROW EXECUTE FUNCTION perpetune_place_label_request()""",
)


def upgrade() -> None:
    for name in ("task", "version"):
        op.add_column("label_requests", sa.Column(name, sa.Text))
    op.execute(
        "UPDATE label_requests SET task = (SELECT task FROM predictions WHERE id = request_id), "
        "version = (SELECT version FROM predictions WHERE id = request_id)"
    )
    op.create_index("label_requests_task_version_request", "label_requests", ["task", "version", "request_id"])
    for statement in (_SQLITE,) if _is_sqlite() else _POSTGRESQL:
        op.execute(sa.text(statement))


def downgrade() -> None:
    if _is_sqlite():
        op.execute("DROP TRIGGER place_label_request")
    else:
        op.execute("DROP TRIGGER place_label_request ON label_requests")
        op.execute("DROP FUNCTION perpetune_place_label_request()")
    op.drop_index("label_requests_task_version_request", "label_requests")
    for name in ("version", "task"):
        op.drop_column("label_requests", name)


def _is_sqlite() -> bool:
    return bool(op.get_context().dialect.name == "sqlite")
