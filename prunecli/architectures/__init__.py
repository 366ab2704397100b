"""Architectures known by name, and how a state dict is recognised as one."""
