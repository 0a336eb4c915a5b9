"""The workspaces that the stack of another one serves too: which, whether they fit, and their services. Imports runtime."""
