"""Training on a machine that shares no disk with this one: its input and output go through an object store."""
