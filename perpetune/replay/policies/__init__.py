"""Retraining policies: perpetune, a schedule, Evidently, never. Imports monitoring and policy."""
