"""Noise on a network while it trains, which leaves nothing behind in it but other weights."""

from prunecli.training.regularizers.registry import (
    REGULARIZERS,
    Regularizer,
    check_regularizer,
    make_regularizer,
)

__all__ = ["REGULARIZERS", "Regularizer", "check_regularizer", "make_regularizer"]
