"""Prune pretrained vision networks and prove every cut."""
