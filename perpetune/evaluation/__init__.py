"""From answers to numbers, tables, plots and a report. Imports no torch and no MLflow."""
