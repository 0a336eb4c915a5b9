"""How `repair` finds and mends what happened to texts on their way here."""
