"""Ways to prune that train while they cut."""
