"""Paths of each curation step's files in a workspace."""

from __future__ import annotations

from pathlib import Path

INBOX = Path("data/inbox")
TRAFFIC = Path("data/traffic/labelled.jsonl")
RESOLVED = Path("data/params.yaml")
RAW = Path("data/raw")
VALID = Path("data/valid")
REPAIRED = Path("data/repaired")
LANGUAGE = Path("data/language")
PRIVATE = Path("data/private")
CLEAN = Path("data/clean")
LABEL_ERRORS = Path("data/label_errors")
SEMANTIC = Path("data/semantic")
DIVIDED = Path("data/divided")
SPLITS = Path("data/splits")
LEAKAGE = Path("data/leakage")
SELECTION = Path("data/selection")
REFERENCE = Path("data/reference")
CARD = Path("data/card")
ASSIGNMENTS = Path("data/assignments.csv")
HOSTED_ANSWERS = Path("data/hosted/answers.jsonl")
STEPS = Path("data/steps")
"""A folder for each step: what it changed and reported, on which nothing but the card depends."""
SECONDS = Path("data/seconds")
"""A file for each step. DVC does not track them: no two runs take as long, and nothing must run again for that."""
