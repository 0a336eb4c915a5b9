"""`perpetune tune`: a hyperparameter search with a time budget. Imports loop and training."""
