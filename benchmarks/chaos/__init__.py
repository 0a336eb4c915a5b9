"""Breaks the real services one after the other, and in pairs, while requests, labels and flow runs go on.

`make chaos ROUNDS=100 SEED=1`; docs/guides/chaos.md says what is broken, what must hold all the same, and what is not tried.
"""
