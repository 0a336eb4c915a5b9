"""Steps of curation that need features of texts: near duplicates by meaning, label errors, selection to a budget."""
