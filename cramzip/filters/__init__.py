"""Filters: reversible changes that turn bytes in another dress into text as a model knows it. Knows bytes alone."""
