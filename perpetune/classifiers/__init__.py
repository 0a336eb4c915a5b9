"""Label classifiers beside the language model: linear, ensemble, temperature. Imports model, generation and statistics."""
