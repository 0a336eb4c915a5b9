"""The services on one machine, and clients of Prefect and the gateway. Imports settings and workspace."""
