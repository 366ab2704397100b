"""A file in another precision beside float, as lines of text: what a terminal and a page show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.budget import format_bytes
from prunecli.wording import counted, images_text, percent, some

if TYPE_CHECKING:
    from prunecli.report import BenchmarkRow, Conversion


def conversion_facts(found: Conversion) -> dict[str, str]:
    """Return size, agreement, accuracy and how INT8 was calibrated, by what each is about."""
    facts = {
        found.label: f"{format_bytes(found.bytes)}, {found.bytes / found.float_bytes:.2f} of the "
        f"{format_bytes(found.float_bytes)} in float",
    }
    if found.agreement is not None and found.agreement_interval is not None:
        low, high = (100 * end for end in found.agreement_interval)
        facts["same class"] = (
            f"{percent(found.agreement)} of {found.images} images, as in float "
            f"(95 %: {low:.1f} to {high:.1f}); relative error {found.error:.1e}"
        )
    else:
        facts["relative error"] = f"{found.error:.1e} beside float"
    if found.accuracy is not None:
        before, after = found.accuracy.before, found.accuracy.after
        facts["accuracy"] = (
            f"{percent(after)}, in float {percent(before)}, on {images_text(found.accuracy.split)}"
        )
    if found.calibration:
        others = (
            f"{one.method} {percent(one.agreement)}"
            for one in found.tried
            if one.agreement is not None
        )
        facts["calibrated"] = (
            f"{found.calibration}, on {counted(found.calibration_images, 'image')}"
            f" (same class: {', '.join(others)})"
        )
        facts["layers"] = f"{found.layers - len(found.in_float)} of {found.layers} in INT8"
        if found.in_float:
            facts["layers"] += f"; in float: {some(found.in_float)}"
        facts["weights"] = f"{found.weight_bits} bits, one scale per channel"
    return facts


def gain_text(row: BenchmarkRow) -> str:
    """Write how many times as fast as in float a file is; nothing where it is in float."""
    if row.gain is None:
        return ""
    return f"{row.gain:.2f}x ({row.gain_low:.2f} to {row.gain_high:.2f})"
