"""Who shares the work. Knows nothing of what the work is."""
