"""Paths of each curation step's files in a workspace."""

from __future__ import annotations

from pathlib import Path

INBOX = Path("data/inbox")
TRAFFIC = Path("data/traffic/labelled.jsonl")
RESOLVED = Path("data/params.yaml")
RAW = Path("data/raw")
VALID = Path("data/valid")
CLEAN = Path("data/clean")
SPLITS = Path("data/splits")
LEAKAGE = Path("data/leakage")
REFERENCE = Path("data/reference")
CARD = Path("data/card")
ASSIGNMENTS = Path("data/assignments.csv")
HOSTED_ANSWERS = Path("data/hosted/answers.jsonl")
