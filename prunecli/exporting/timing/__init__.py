"""Honest clocks: whole networks side by side, and single operators."""
