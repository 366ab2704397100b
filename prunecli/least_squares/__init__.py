"""Least squares for layers: normal equations, and which columns they miss least."""
