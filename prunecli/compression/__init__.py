"""From wishes to one model: what is wished for, what is tried, and what is kept of a search."""
