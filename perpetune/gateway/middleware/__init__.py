"""What every request passes: access, limits, bounds, draining. Imports api errors and telemetry."""
