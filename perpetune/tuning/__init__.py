"""The search for better settings: tried under a budget, and the best written into params.yaml on request."""
