"""What is on record of a version, shown to a person. Imports loop and tracking; only the CLI and the flows import it."""
