"""The inbox: the files that ingestion writes, where they come from, and which version of a row is the newest."""
