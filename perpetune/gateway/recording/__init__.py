"""From an answer to a row of the prediction log, through a spool on disk. Imports the prediction log."""
