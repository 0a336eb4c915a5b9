"""Running the stages: their files, their commands, DVC, and where their rows are computed."""
