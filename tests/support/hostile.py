"""Texts that would break a page that does not escape them."""

from __future__ import annotations

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "$\\frac{1}{$",
    "caf\udce9 \x07 \u202egpj",
    "</style></title>",
    "&lt;b&gt; 'quoted' \"twice\"",
)
