"""One road from a network to a pruned one, and its trials: search and sweep."""
