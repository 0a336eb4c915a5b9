"""The stages of dvc.yaml, one module each. Imports readers and what curation shares."""
