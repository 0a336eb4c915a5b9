"""The services of one machine, and clients of Prefect and of the gateway. Imports settings and workspace."""
