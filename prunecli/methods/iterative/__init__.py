"""Removals and updates in turn: the network shrinks while it trains."""

from prunecli.methods.iterative.road import check_iterative_prune, iterative_prune

__all__ = ["check_iterative_prune", "iterative_prune"]
