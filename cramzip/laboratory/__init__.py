"""The laboratory: how much fits into one vector of a model? The measures and the experiments of Kuratov et al. 2025."""
