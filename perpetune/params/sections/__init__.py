"""Every setting of `params.yaml` with its type and default.

Each function of the product receives its own section only.
"""
