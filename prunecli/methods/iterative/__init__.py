"""Removals and updates in turn: the network shrinks while it trains."""

from prunecli.methods.iterative.road import Iterative

__all__ = ["Iterative"]
