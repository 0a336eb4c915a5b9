"""Where a history comes from: a file, the prediction log, the bundled reviews. Imports curation."""
