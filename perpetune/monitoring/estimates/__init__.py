"""Values of answers that have to be asked for: a judge's grades, and agreement with other samples."""
