"""The command line: paths, terminals, options. Knows nothing of tensors."""
