"""Evaluation: predictions, the report on them, and pictures of it."""
