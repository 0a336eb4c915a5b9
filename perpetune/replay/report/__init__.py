"""A replay on a terminal and as a picture. Imports replay."""
