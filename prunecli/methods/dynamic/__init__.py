"""Dynamic channel execution: only the channels that a bandit chooses are computed and trained."""

from prunecli.methods.dynamic.groups import uniform_widths, whole_groups
from prunecli.methods.dynamic.method import DynamicChannels, DynamicOptions

__all__ = ["DynamicChannels", "DynamicOptions", "uniform_widths", "whole_groups"]
