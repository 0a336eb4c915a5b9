"""Reproduce a version from its recorded data, settings and code, and compare. Imports training and tracking."""
