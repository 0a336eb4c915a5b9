"""A team's files as rows: CSV, JSON Lines, Parquet, and the bundled reviews. Imports only what all parts share."""
