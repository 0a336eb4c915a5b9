"""From files of examples to the splits that a model is trained and evaluated on. Imports only what all parts share."""
