"""`perpetune tune`: a search for better settings under a budget. Imports loop and training."""
