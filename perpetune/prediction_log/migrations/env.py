"""Alembic's entry: it upgrades over the connection, and inside the transaction, that `open_log` hands in."""

from alembic import context

from perpetune.prediction_log.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
