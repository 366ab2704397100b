"""Op rules: one function per kind of operator, saying only where channel ids go."""

from prunecli.graph.rules import compute, pick, pointwise, shape, vision
from prunecli.graph.rules.call import RULES, Annotation, Call, rule

__all__ = ["RULES", "Annotation", "Call", "compute", "pick", "pointwise", "rule", "shape", "vision"]
