"""Commands for the host: services, settings, keys, backups and what is kept."""
