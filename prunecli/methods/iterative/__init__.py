"""Removals and updates in turn: the network shrinks while it trains."""

from prunecli.methods.iterative.road import iterative_prune
from prunecli.methods.iterative.state import Snapshot

__all__ = ["Snapshot", "iterative_prune"]
