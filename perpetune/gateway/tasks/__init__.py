"""Several tasks behind one gateway: one app for each, one engine for all. Imports app, api, middleware and telemetry."""
