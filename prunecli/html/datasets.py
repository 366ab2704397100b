"""The part of a page that is about a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.html.dataset_images import confusing_sections, odd_sections
from prunecli.html.drawing import drawing
from prunecli.html.parts import (
    Bar,
    Facts,
    Folded,
    Grid,
    Numbers,
    Part,
    Section,
)
from prunecli.html.words import place_text
from prunecli.pictures import (
    balance_picture,
    class_map_picture,
    difficulty_picture,
    reduction_picture,
    relation_picture,
    scale_of,
    scale_picture,
    scale_text,
    similarity_picture,
    spectrum_picture,
)
from prunecli.pictures.datasets import hardest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prunecli.report import DatasetAnalysis


ROWS = 1000
"""Classes that a table lists."""


def dataset_title(dataset: DatasetAnalysis) -> str:
    """Return what a page about a data set is called."""
    name = Path(dataset.path).name or dataset.path
    return f"{name}: {dataset.images:,} {_things(dataset)} in {len(dataset.classes):,} classes"


def dataset_sections(dataset: DatasetAnalysis, images: Mapping[str, str]) -> list[Section]:
    """Return what is known of a data set; `images` are data URIs of `dataset_images`."""
    return [
        _glance(dataset),
        _alike(dataset),
        _classes(dataset),
        *confusing_sections(dataset, images),
        *_expected(dataset),
        *_reduction(dataset),
        *odd_sections(dataset, images),
        _how(dataset),
    ]


def _glance(dataset: DatasetAnalysis) -> Section:
    settings = dataset.csg_settings
    score = settings.get("variant", "csg").upper()
    counts = [entry.count for entry in dataset.classes]
    low, high = (f"{value:.2f}" for value in dataset.csg_interval)
    spread = f", 95 % interval {low} to {high}" if high != low else ""
    numbers = [
        (f"{dataset.csg:.2f}", f"{score}, overlap of classes", f"higher is harder{spread}"),
        (f"{dataset.images:,}", _things(dataset), f"in {len(counts):,} classes"),
        (f"{dataset.balance:.2f}", "balance", "smallest class / largest class; 1 is balanced"),
    ]
    facts = {
        "data": f"{place_text(dataset.path)} ({dataset.format})",
        f"{_things(dataset)} per class": _range(min(counts), max(counts)),
        "measured on": f"{settings.get('images', dataset.images):,} {_things(dataset)}"
        + (" of the training set" if settings.get("split") == "train" else ""),
    }
    expected = dataset.expected
    if expected is not None and expected.error is not None and expected.interval is not None:
        span = " to ".join(f"{100 * end:.0f}" for end in expected.interval)
        numbers.insert(
            1, (f"{100 * expected.error:.0f} %", "expected error", f"of a small model: {span} %")
        )
    if dataset.sizes:
        twins = len(dataset.duplicates) + len(dataset.near_duplicates)
        numbers.append((f"{twins:,}", "groups of duplicates", "equal or nearly equal images"))
        numbers.append((f"{len(dataset.unreadable):,}", "unreadable files", ""))
        facts["image sizes"] = _sizes(dataset.sizes)
    if dataset.looked_at is not None and dataset.looked_at < dataset.images:
        facts["checked"] = f"{dataset.looked_at:,} of the images, drawn at random"
    if dataset.kinds:
        facts["unusual"] = ", ".join(f"{count:,} {kind}" for kind, count in dataset.kinds.items())
    if dataset.subset is not None:
        subset = dataset.subset
        facts["subset"] = f"{subset.images:,} images by {subset.rule}, in {place_text(subset.path)}"
    parts = (Numbers(tuple(numbers), leading=1), *_scale(dataset), Facts(facts))
    return Section("The data set", "", parts, rank=1)


def _scale(dataset: DatasetAnalysis) -> list[Part]:
    """Return where known data sets are on the scale of the score, if any was measured its way."""
    scale = scale_of(dataset)
    if scale is None:
        return []
    caption = f"{scale_text(scale)} The known data sets were measured with the same settings."
    if scale.measure != "CSG":
        caption += " They have 10 classes. CSG/(K-1) does not depend on the number K of classes."
    return [drawing(scale_picture, scale, caption=caption)]


def _things(dataset: DatasetAnalysis) -> str:
    """Return what a data set is made of: a table of features has no images."""
    return "images" if dataset.sizes or dataset.unreadable else "rows of features"


def _range(low: int, high: int) -> str:
    return f"{low:,} each" if low == high else f"{low:,} to {high:,}"


def _sizes(sizes: Mapping[str, int]) -> str:
    ranked = sorted(sizes.items(), key=lambda item: -item[1])
    rest = f" and {len(ranked) - 4} other sizes" if len(ranked) > 4 else ""
    return ", ".join(f"{size} ({count:,})" for size, count in ranked[:4]) + rest


def _alike(dataset: DatasetAnalysis) -> Section:
    pairs = Grid(
        ("classes", ">similarity"),
        tuple((f"{a} and {b}", f"{similarity:.3f}") for a, b, similarity in dataset.confused_pairs),
        "Similarity: how far the neighbours of two classes are from the same classes; 1 for "
        "classes that cannot be told apart.",
    )
    text = (
        "Classes that are close on the map have images with neighbours from the same classes. "
        "Lines join the most similar pairs, thicker for more. The score comes from the matrix. It "
        "has similar classes side by side, and its numbers are per cent."
    )
    if dataset.csg_settings["volume"] != "none":
        text += (
            " The map counts neighbours. The matrix gives them more weight where images lie close "
            "together. The two may therefore differ (not with --volume none)."
        )
    parts: list[Part] = [
        drawing(class_map_picture, dataset),
        drawing(similarity_picture, dataset),
    ]
    if pairs.rows:
        parts.append(Folded("The most similar pairs in a table", (pairs,)))
    return Section("Similar classes", text, tuple(parts), rank=1)


def _classes(dataset: DatasetAnalysis) -> Section:
    counts = {entry.name: entry.count for entry in dataset.classes}
    ranked = hardest(dataset)
    table = Grid(
        ("class", ">images", ">neighbours from other classes", ">overlap", ">similar classes"),
        tuple(
            (
                entry.name,
                f"{counts.get(entry.name, 0):,}",
                Bar(entry.others, f"{entry.others:.1%}"),
                f"{entry.overlap:.2f}",
                f"{2**entry.entropy:.1f}",
            )
            for entry in ranked[:ROWS]
        ),
        "Overlap: the sum of the similarities with all other classes. Similar classes: their "
        "effective number, the class itself included (2 to the entropy of its similarities).",
    )
    of = "All" if len(ranked) <= ROWS else f"The {ROWS:,} hardest of"
    absent = len(counts) - len(ranked)
    text = (
        "A class is hard if the nearest neighbours of its images are from other classes. A trained "
        "model may find other classes hard, because it does not see images as the score does."
    )
    if absent > 0:
        text += f" {absent:,} classes have no image among the measured ones."
    drawn = (drawing(difficulty_picture, dataset), drawing(balance_picture, dataset))
    folded = Folded(f"{of} {len(ranked):,} classes in a table", (table,))
    return Section("Class difficulty", text, (*drawn, folded))


def _expected(dataset: DatasetAnalysis) -> list[Section]:
    """Return what error a small network would have, or why no estimate is possible."""
    expected = dataset.expected
    if expected is None:
        return []
    title, relation = "Expected error", expected.relation
    if expected.error is None or expected.interval is None or relation is None:
        return [Section(title, f"No estimate is possible: {'; '.join(expected.outside)}.")]
    low, high = expected.interval
    text = (
        f"About {100 * expected.error:.0f} % ({100 * low:.0f} to {100 * high:.0f} %) for a small "
        f"model, estimated from a fit to {len(relation.points)} data sets. It is a rough "
        "estimate. The table says how far it is off for data of which no variant was fitted."
    )
    rows = tuple(
        (name, f"{100 * missed:.1f}") for name, missed in relation.families_left_out.items()
    )
    facts = {
        "network": f"{relation.network}; {relation.training}",
        "embedding": f"{relation.embedding}, volume {relation.volume}",
        "correlation": f"r = {relation.r:.3f}",
        "leave one out": f"off by {100 * relation.left_out:.1f} points",
    }
    picture = drawing(relation_picture, relation, expected, classes=len(dataset.difficulty))
    table = Folded(
        "How far the estimate is off for each kind of data", (Grid(("data", ">points"), rows),)
    )
    return [Section(title, text, (picture, Facts(facts), table))]


def _reduction(dataset: DatasetAnalysis) -> list[Section]:
    found = dataset.reduction
    if found is None:
        return []
    kept = (
        "No smaller set keeps the score."
        if found.smallest is None
        else f"{found.smallest:,} images per class keep the score."
    )
    text = (
        "The picture shows the score of random subsets by their images per class, mean and "
        f"standard deviation over draws. All images have a score of {found.whole:.3f}. A size "
        f"keeps it if this and all larger sizes are within {found.tolerance:.0%}. That rule is "
        f"prunecli's own. {kept}"
    )
    rows = tuple(
        (f"{step.images_per_class:,}", f"{step.score:.3f}", f"{step.deviation:.3f}")
        for step in found.steps
    )
    table = Grid((">images per class", ">CSG without density weights", ">standard deviation"), rows)
    picture = drawing(reduction_picture, dataset)
    return [Section("How small the data set could be", text, (picture, table), rank=1)]


def _drawn(dataset: DatasetAnalysis) -> str:
    """Say which images were measured, and how often."""
    settings = dataset.csg_settings
    images, samples = settings.get("images", dataset.images), settings["samples"]
    if min(images, max(entry.count for entry in dataset.classes)) <= samples:
        return f"all {images:,}, since no class has more than {samples:,}"
    return f"{samples:,} images per class, {settings['repeats']} times, out of {images:,}"


def _how(dataset: DatasetAnalysis) -> Section:
    settings = dataset.csg_settings
    facts = {
        "embedding": f"{settings['embedding']}: {settings['embedding_steps']}",
        "samples": _drawn(dataset),
        "neighbours": str(settings["neighbours"]),
        "volume": f"{settings['volume']} "
        f"({_VOLUMES['none' if settings['volume'] == 'none' else 'box']})",
        "score": f"{settings.get('variant', 'csg')}: {dataset.csg:.4f}"
        + (
            ""
            if dataset.csg_deviation is None
            else f", standard deviation {dataset.csg_deviation:.4f}"
        ),
    }
    if dataset.csg_votes is not None:
        facts["without density weights"] = (
            f"{dataset.csg_votes:.4f}, which varies less and does not depend on the scale of pixels"
        )
    if "seed" in settings:
        facts["seed"] = str(settings["seed"])
    if "versions" in settings:
        facts["versions"] = ", ".join(
            f"{name} {text}" for name, text in settings["versions"].items()
        )
    text = (
        "CSG is the cumulative spectral gradient (Branchaud-Charron, Achkar, Jodoin, CVPR 2019). "
        "It counts the classes of the nearest neighbours of sampled images, builds a graph of the "
        "classes from them, and adds up the gaps in the spectrum of its Laplacian. A spectrum of "
        "zeros means that no classes overlap. An early rise means that most of them do."
    )
    parts = (drawing(spectrum_picture, dataset), Facts(facts))
    return Section("How the score was measured", text, parts, rank=3)


_VOLUMES = {
    "none": "neighbours are counted without density weights",
    "box": "neighbours are weighted by the density in the box around them",
}
