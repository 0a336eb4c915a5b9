"""The gate on stored traffic: which requests are answered, which labels are asked for, and the decision on them."""
