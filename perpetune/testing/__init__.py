"""Fakes for tests and benchmarks; not in the wheel. Imports engines; nothing in the product imports it."""
