"""The same answers of a model, sooner."""
