"""Which version answers: follows the registry, checks parity, routes trials. Imports engines."""
