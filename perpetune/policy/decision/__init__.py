"""The record of a verdict, its one line, and what to do next. Imports policy."""
