"""Base, adapters, chat format and token trees, for training and inference. Imports only params, records and statistics."""
