"""A prediction log as an older perpetune left it."""

from __future__ import annotations

from importlib.resources import files

import sqlalchemy
from alembic import command
from alembic.config import Config

from perpetune.prediction_log.database import writing


def downgrade(log: sqlalchemy.Engine, revision: str) -> None:
    """Take the tables back to a revision; their rows stay."""
    config = Config()
    config.set_main_option("script_location", str(files("perpetune.prediction_log") / "migrations"))
    with writing(log) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
