"""The demo: the same flows and services on real reviews, in a folder of its own."""
