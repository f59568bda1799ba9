"""The `.cram` container: bytes to facts and back. Knows nothing of models."""
