"""Frozen language models: where they are, what identifies them, what they say. Knows nothing of `.cram` files."""
