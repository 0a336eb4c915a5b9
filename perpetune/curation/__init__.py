"""Data curation: from files of examples to training, validation and holdout splits. Imports only what all parts share."""
