"""What a model carries from token to token: of a common prefix, of a padded batch, of single rows."""
