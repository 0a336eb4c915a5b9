"""A request to a model and its answer, without any model. Imports only what all parts share."""
