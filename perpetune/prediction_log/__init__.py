"""Requests, answers, feedback and label requests in one SQL database. Imports curation and what all parts share."""
