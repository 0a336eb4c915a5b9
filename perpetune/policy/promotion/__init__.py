"""The promotion gate: from evidence to a verdict on a challenger."""
