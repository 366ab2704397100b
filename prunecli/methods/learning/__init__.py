"""The common life of methods that learn what to prune while they train."""
