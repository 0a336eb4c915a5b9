"""A refresh whose steps run in containers, one after the other, on a copy of the workspace in an object store."""
