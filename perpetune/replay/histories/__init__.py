"""Sources of histories: a file, the prediction log, the bundled reviews. Imports curation."""
