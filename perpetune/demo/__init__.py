"""`perpetune demo`: the same flows and services on real reviews, in a folder of its own. Imported by the CLI alone."""
