"""The part of a page that is about a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.html.dataset_images import confusing_sections, odd_sections
from prunecli.html.parts import (
    Bar,
    Drawing,
    Facts,
    Folded,
    Grid,
    Numbers,
    Part,
    Section,
)
from prunecli.pictures import (
    balance_picture,
    class_map_picture,
    difficulty_picture,
    reduction_picture,
    relation_picture,
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
    spread = f", 95 % {low} to {high}" if high != low else ""
    numbers = [
        (f"{dataset.csg:.2f}", f"{score}, how far classes overlap", f"higher is harder{spread}"),
        (f"{dataset.images:,}", _things(dataset), f"in {len(counts):,} classes"),
        (f"{dataset.balance:.2f}", "balance", "smallest class over largest; 1 is even"),
    ]
    facts = {
        "data": f"{dataset.path} ({dataset.format})",
        "in a class": _range(min(counts), max(counts)),
        "measured on": f"{settings.get('images', dataset.images):,} {_things(dataset)}"
        + (" set apart for training" if settings.get("split") == "train" else ""),
    }
    expected = dataset.expected
    if expected is not None and expected.error is not None and expected.interval is not None:
        span = " to ".join(f"{100 * end:.0f}" for end in expected.interval)
        numbers.insert(
            1, (f"{100 * expected.error:.0f} %", "error to expect", f"of a small network: {span}")
        )
    if dataset.sizes:
        twins = len(dataset.duplicates) + len(dataset.near_duplicates)
        numbers.append((f"{twins:,}", "groups of the same image", "equal or nearly so"))
        numbers.append((f"{len(dataset.unreadable):,}", "unreadable files", ""))
        facts["sizes"] = _sizes(dataset.sizes)
    if dataset.looked_at is not None and dataset.looked_at < dataset.images:
        facts["looked at"] = f"{dataset.looked_at:,} of the images, drawn at random"
    if dataset.kinds:
        facts["unusual"] = ", ".join(f"{count:,} {kind}" for kind, count in dataset.kinds.items())
    if dataset.subset is not None:
        subset = dataset.subset
        facts["subset"] = f"{subset.images:,} images by {subset.rule}, in {subset.path}"
    return Section("At a glance", "", (Numbers(tuple(numbers)), Facts(facts)))


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
        ("taken for each other", ">similarity"),
        tuple((f"{a} and {b}", f"{similarity:.3f}") for a, b, similarity in dataset.confused_pairs),
        "Similarity: the sum over all classes of what two of them have in common in the classes of "
        "their neighbours, by plain votes; 1 for classes that cannot be told apart.",
    )
    text = (
        "Classes that are near each other on the map have images with neighbours of the same "
        "classes. Lines tie the most similar pairs, stronger for more. The matrix, from which the "
        "score comes, has similar classes side by side; numbers in it are per cent."
    )
    if dataset.csg_settings["volume"] != "none":
        text += (
            " The map goes by plain votes of neighbours. In the matrix, votes weigh more where "
            "images lie close together, so that the two may differ (not with --volume none)."
        )
    parts: list[Part] = [Drawing(class_map_picture(dataset)), Drawing(similarity_picture(dataset))]
    if pairs.rows:
        parts.append(Folded("The most similar pairs in a table", (pairs,)))
    return Section("Which classes are alike", text, tuple(parts))


def _classes(dataset: DatasetAnalysis) -> Section:
    counts = {entry.name: entry.count for entry in dataset.classes}
    ranked = hardest(dataset)
    table = Grid(
        ("class", ">images", ">neighbours of other classes", ">overlap", ">classes it is like"),
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
        "Overlap: the sum of the similarities with all other classes. Classes it is like: their "
        "effective number, itself among them (2 to the entropy of the row of similarities).",
    )
    of = "All" if len(ranked) <= ROWS else f"The {ROWS:,} hardest of"
    absent = len(counts) - len(ranked)
    text = (
        "A class is hard where the nearest neighbours of its images are of other classes. What a "
        "trained network makes of it may differ: it does not see images as the score does."
    )
    if absent > 0:
        text += f" {absent:,} classes have no image among those that were measured."
    drawn = (Drawing(difficulty_picture(dataset)), Drawing(balance_picture(dataset)))
    folded = Folded(f"{of} {len(ranked):,} classes in a table", (table,))
    return Section("How hard each class is", text, (*drawn, folded))


def _expected(dataset: DatasetAnalysis) -> list[Section]:
    """Return what error a small network would have, or why nothing can be said about that."""
    expected = dataset.expected
    if expected is None:
        return []
    title, relation = "What error to expect", expected.relation
    if expected.error is None or expected.interval is None or relation is None:
        return [Section(title, f"Nothing can be said: {'; '.join(expected.outside)}.")]
    low, high = expected.interval
    text = (
        f"About {100 * expected.error:.0f} % ({100 * low:.0f} to {100 * high:.0f} %) for a small "
        f"network, read off a fit to {len(relation.points)} data sets. It is no law: without any "
        "variant of the same data it misses by as much as the table says."
    )
    rows = tuple(
        (name, f"{100 * missed:.1f}") for name, missed in relation.families_left_out.items()
    )
    facts = {
        "network": f"{relation.network}; {relation.training}",
        "seen through": f"{relation.embedding}, volume {relation.volume}",
        "correlation": f"r = {relation.r:.3f}",
        "one left out": f"missed by {100 * relation.left_out:.1f} points",
    }
    picture = relation_picture(relation, expected, classes=len(dataset.difficulty))
    table = Folded("How far each kind of data is missed", (Grid(("data", ">points"), rows),))
    return [Section(title, text, (Drawing(picture), Facts(facts), table))]


def _reduction(dataset: DatasetAnalysis) -> list[Section]:
    found = dataset.reduction
    if found is None:
        return []
    kept = (
        "No smaller set keeps it."
        if found.smallest is None
        else f"{found.smallest:,} images of every class keep it."
    )
    text = (
        "The score of random sets with as many images of every class as the axis says, mean and "
        f"standard deviation over draws. A size keeps the score of all images, {found.whole:.3f}, "
        f"where it and all larger ones are within {found.tolerance:.0%} of it: a rule of our own. "
        f"{kept}"
    )
    rows = tuple(
        (f"{step.images_per_class:,}", f"{step.score:.3f}", f"{step.deviation:.3f}")
        for step in found.steps
    )
    table = Grid((">images of every class", ">CSG by plain votes", ">standard deviation"), rows)
    drawing = Drawing(reduction_picture(dataset))
    return [Section("How small the set could be", text, (drawing, table))]


def _drawn(dataset: DatasetAnalysis) -> str:
    """Say which images were looked at, and how often."""
    settings = dataset.csg_settings
    images, samples = settings.get("images", dataset.images), settings["samples"]
    if min(images, max(entry.count for entry in dataset.classes)) <= samples:
        return f"all {images:,}, since no class has more than {samples:,}"
    return f"{samples:,} images of every class, {settings['repeats']} times, out of {images:,}"


def _how(dataset: DatasetAnalysis) -> Section:
    settings = dataset.csg_settings
    facts = {
        "seen through": f"{settings['embedding']}: {settings['embedding_steps']}",
        "drawn": _drawn(dataset),
        "neighbours": str(settings["neighbours"]),
        "volume": f"{settings['volume']} "
        f"({'plain votes' if settings['volume'] == 'none' else 'votes over the box they lie in'})",
        "score": f"{settings.get('variant', 'csg')}: {dataset.csg:.4f}"
        + ("" if dataset.csg_deviation is None else f", deviation {dataset.csg_deviation:.4f}"),
    }
    if dataset.csg_votes is not None:
        facts["by plain votes"] = f"{dataset.csg_votes:.4f}, steadier and free of scale"
    if "seed" in settings:
        facts["seed"] = str(settings["seed"])
    if "versions" in settings:
        facts["with"] = ", ".join(f"{name} {text}" for name, text in settings["versions"].items())
    text = (
        "The cumulative spectral gradient (Branchaud-Charron, Achkar, Jodoin, CVPR 2019) looks at "
        "the classes of the nearest neighbours of drawn images, makes a graph of the classes, and "
        "adds up the steps in the spectrum of its Laplacian. All zero: no class overlaps another. "
        "An early rise: most of them do."
    )
    return Section(
        "How the score was taken", text, (Drawing(spectrum_picture(dataset)), Facts(facts))
    )
