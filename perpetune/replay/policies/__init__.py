"""When to retrain: perpetune, a schedule, Evidently, never. Imports monitoring and policy."""
