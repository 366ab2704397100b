"""The tables of how complexity is measured, from what the benchmarks wrote."""

from __future__ import annotations

from typing import TypeAlias

Rows: TypeAlias = list[dict[str, str]]
Table: TypeAlias = tuple[tuple[str, ...], list[tuple[str, ...]]]


def estimates(rows: Rows) -> Table:
    """Return the score of every data set under a few embeddings, and what it took."""
    head = ("data", "embedding", "volume", "CSG", "3 seeds", "decoding", "embedding", "score")
    return (*head[:5], *(f"{name}, CPU s" for name in head[5:])), [
        (
            row["data"],
            row["embedding"],
            row["volume"],
            f"{float(row['csg_mean']):.2f}",
            f"{float(row['csg_min']):.2f} to {float(row['csg_max']):.2f}",
            f"{float(row['decode_cpu_seconds']):.1f}",
            f"{float(row['embed_cpu_seconds']):.1f}",
            f"{float(row['csg_cpu_seconds']):.2f}",
        )
        for row in rows
    ]


def embeddings(rows: Rows, published: Rows) -> Table:
    """Return the score of every data set through every embedding beside what was published."""
    known = {(row["data"], row["embedding"]): row for row in published}
    head = ("data", "images", "embedding", "CSG", "95 % interval", "plain votes", "published")
    found = []
    for row in rows:
        other = known.get((row["data"], row["embedding"]))
        name = row["embedding"]
        found.append(
            (
                row["data"],
                row["images"],
                f"{name}, {row['epochs']} epochs" if row["epochs"] else name,
                f"{float(row['csg']):.2f}",
                f"{float(row['low']):.2f} to {float(row['high']):.2f}",
                f"{float(row['votes']):.2f}",
                "" if other is None else f"{other['value']} ({other['what']})",
            )
        )
    return head, found


def reference(rows: Rows) -> Table:
    """Return both implementations side by side."""
    head = (
        "data",
        "CSG",
        "reference",
        "largest difference",
        "one draw, CPU s",
        "reference, CPU s",
        "times faster",
        "ten draws, CPU s",
        "times faster",
    )
    return head, [
        (
            f"{row['data']}, {row['images']} x {row['features']}",
            row["csg"],
            row["reference_csg"],
            row["largest_difference"],
            f"{float(row['cpu_seconds']):.2f}",
            f"{float(row['reference_cpu_seconds']):.2f}",
            row["faster_cpu"],
            f"{float(row['all_cpu_seconds']):.2f}",
            row["faster_all"],
        )
        for row in rows
    ]


def scale(rows: Rows) -> Table:
    """Return seconds and memory by the number of samples."""
    head = ("samples", "looked at", "CPU s", "wall s", "features, GiB", "peak, GiB")
    return head, [
        (
            f"{int(row['samples']):,}",
            f"{int(row['drawn']):,}",
            f"{float(row['cpu_seconds']):.1f}",
            f"{float(row['wall_seconds']):.1f}",
            f"{float(row['features_gib']):.2f}",
            f"{float(row['peak_gib']):.2f}",
        )
        for row in rows
    ]


def tsne(rows: Rows) -> Table:
    """Return both libraries side by side."""
    head = (
        "data",
        "dimensions",
        "library",
        "CPU s",
        "trustworthiness",
        "CSG",
        "plain votes",
    )
    return head, [
        (
            f"{row['data']}, {row['images']}",
            row["dimensions"],
            row["library"],
            f"{float(row['cpu_seconds']):.0f}",
            f"{float(row['trustworthiness']):.3f}",
            f"{float(row['csg_box']):.3f} ± {float(row['csg_box_deviation']):.3f}",
            f"{float(row['csg_none']):.3f} ± {float(row['csg_none_deviation']):.3f}",
        )
        for row in rows
    ]
