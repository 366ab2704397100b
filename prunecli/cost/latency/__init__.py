"""The time of a network on a CPU as a function of its widths, from measured operators."""

from prunecli.cost.latency.model import LatencyModel, bind, find_grid
from prunecli.cost.latency.operators import Operator, OperatorShape, operators_of
from prunecli.cost.latency.table import Grid, LatencyTable, Machine, parse_table

__all__ = [
    "Grid",
    "LatencyModel",
    "LatencyTable",
    "Machine",
    "Operator",
    "OperatorShape",
    "bind",
    "find_grid",
    "operators_of",
    "parse_table",
]
