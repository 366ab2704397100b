"""Op rules: one function per kind of operator, saying only where channel ids go."""

from prunecli.graph.rules import compute, pointwise, shape
from prunecli.graph.rules.call import RULES, Annotation, Call, rule

__all__ = ["RULES", "Annotation", "Call", "compute", "pointwise", "rule", "shape"]
