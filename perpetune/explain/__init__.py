"""Reports on versions and the task's status. Imports loop and tracking; only the CLI and the flows import it."""
