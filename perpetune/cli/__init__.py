"""The commands. Imports everything; nothing imports it."""

from perpetune.cli.app import app as app
