"""Removals and updates in turn: the network shrinks while it trains."""

from prunecli.methods.iterative.road import iterative_prune

__all__ = ["iterative_prune"]
