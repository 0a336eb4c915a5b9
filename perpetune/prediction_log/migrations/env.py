"""Alembic's environment: migrations run on the connection and in the transaction of `open_log`."""

from alembic import context

from perpetune.prediction_log.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
