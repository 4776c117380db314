"""The head of HEAP: settings, network, three losses, cache of features and training (all but settings need torch)."""
