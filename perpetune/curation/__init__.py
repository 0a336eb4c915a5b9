"""From files of examples to the splits that a model is trained and judged on: one file per step."""
