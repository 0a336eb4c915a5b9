"""The steps of a refresh, free of the orchestrator. Imports everything below it but no Prefect and no gateway."""
