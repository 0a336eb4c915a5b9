"""Fakes for tests and benchmarks; not in the wheel. Imports engines; no part of the product imports it."""
