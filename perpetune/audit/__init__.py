"""Who decided what: an append-only log of decisions and administration, in which each entry seals those before it."""
