"""Dynamic channel execution: only the channels that a bandit chooses are computed and trained."""

from prunecli.methods.dynamic.groups import uniform_widths, whole_groups
from prunecli.methods.dynamic.method import DynamicChannels
from prunecli.methods.dynamic.road import Dynamic
from prunecli.methods.dynamic.settings import DynamicOptions

__all__ = ["Dynamic", "DynamicChannels", "DynamicOptions", "uniform_widths", "whole_groups"]
