"""What training and inference share: base, adapters, chat format, token trees. Imports only what all parts share."""
