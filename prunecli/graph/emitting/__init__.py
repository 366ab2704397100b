"""Re-emit the traced graph for the channels that are kept."""
