"""Several processes that serve one address: the first follows the registry, and the others follow it. Imports releases."""
