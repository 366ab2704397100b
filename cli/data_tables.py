"""What `analyze` says about a data set, and about records of training on it."""

from collections import Counter
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from rich.table import Table

from prunecli.report import (
    DatasetAnalysis,
    ExpectedError,
    KeptLearnability,
    LearnabilityReport,
    MaskAnalysis,
    Reduction,
    SamplingReport,
)
from prunecli.wording import mask_facts, percent

from .table_parts import BAR, Parts, add_rest, fact_rows, grid, shorten


def _interval(low: float, high: float) -> str:
    # With fewer images than the score draws, every repeat draws them all.
    return f"95 % {low:.3f} to {high:.3f}" if high - low > 1e-9 else "every image in it"


def dataset_parts(dataset: DatasetAnalysis, rows: int | None) -> Parts:
    """Return what is known of a data set."""
    low, high = dataset.csg_interval
    score = dataset.csg_settings.get("variant", "csg").upper()
    sizes = sorted(dataset.sizes.items(), key=lambda item: -item[1])
    looked = "" if dataset.looked_at in {None, dataset.images} else f", {dataset.looked_at} opened"
    facts = {
        "data": f"{dataset.path} ({dataset.format})",
        "images": f"{dataset.images} in {len(dataset.classes)} classes{looked}",
        "sizes": ", ".join(f"{size} x{count}" for size, count in sizes[:4]) or "no images",
        "balance": f"{dataset.balance:.3f} (1 is even)",
        "unreadable": str(len(dataset.unreadable)),
        "duplicates": f"{len(dataset.duplicates)} groups of equal images, "
        f"{len(dataset.near_duplicates)} of nearly equal ones",
        score: f"{dataset.csg:.3f}, {_interval(low, high)} (higher is harder)",
        "embedding": _embedding_text(dataset.csg_settings),
    }
    if dataset.csg_votes is not None:
        facts["plain votes"] = f"{dataset.csg_votes:.3f} (the same without volumes, steadier)"
    if dataset.expected is not None:
        facts["expected error"] = _expected(dataset.expected)
    if dataset.subset is not None:
        subset = dataset.subset
        facts["written"] = (
            f"{subset.path}: {subset.images} images, {subset.per_class} of every class at most, "
            f"chosen by {subset.rule}{_kept_text(subset.learnability)}"
        )
    reduced = [] if dataset.reduction is None else [_reduction_table(dataset.reduction)]
    return [*_class_parts(dataset, rows), *reduced, fact_rows(facts)]


def mask_parts(masks: MaskAnalysis, rows: int | None) -> Parts:
    """Return what is known of images with masks, the rarest class first."""
    table = grid("class", ">images with it", ">pixels")
    rarest_first = sorted(masks.classes, key=lambda one: one.pixels)
    for one in rarest_first[:rows]:
        table.add_row(one.name, str(one.images), percent(one.pixels))
    add_rest(table, len(rarest_first), rows, "classes")
    return [table, fact_rows({"data": f"{masks.path} ({masks.format})", **mask_facts(masks)})]


def learnability_parts(report: LearnabilityReport, rows: int | None) -> Parts:
    """Return records of training, how far they agree, and labels to look at."""
    runs = grid("run", "network", ">epochs", ">learnability", ">always", ">never", ">forgotten")
    for run in report.runs:
        runs.add_row(
            shorten(run.name, 20),
            shorten(run.network.partition("(")[0], 20),
            str(run.epochs),
            f"{run.learnability:.3f}",
            str(run.always),
            str(run.never),
            f"{run.forgetting:.2f}",
        )
    runs.caption = "always, never: images classified correctly after every epoch, after none"
    pairs = grid("runs", ">images", ">Pearson", ">Spearman", ">hardest tenth", ">without always")
    for pair in report.pairs:
        values = (pair.pearson, pair.spearman, pair.overlap, pair.pearson_wrong)
        pairs.add_row(
            f"{shorten(pair.first, 14)}, {shorten(pair.second, 14)}",
            str(pair.images),
            *("" if value is None else f"{value:.3f}" for value in values),
        )
    pairs.caption = (
        "correlations of learnability over images; the share of the hardest tenth in common; "
        "Pearson without images that both always classified correctly"
    )
    images = grid("never learned: check the label", "class", ">learnability")
    for image in report.label_errors[: rows and 5]:
        images.add_row(shorten(image.path, 46), image.name, f"{image.learnability:.3f}")
    return [
        runs,
        *([pairs] if report.pairs else []),
        *([images] if report.label_errors else []),
    ]


def _expected(expected: ExpectedError) -> str:
    """Return the error to expect of a small network and how far to trust it, or why not."""
    relation = expected.relation
    if expected.error is None or expected.interval is None or relation is None:
        return f"none: {'; '.join(expected.outside)}"
    low, high = expected.interval
    foreign = sum(relation.families_left_out.values()) / len(relation.families_left_out)
    chance = "p < 1e-10" if relation.p < 1e-10 else f"p = {relation.p:.1g}"
    error = f"{100 * expected.error:.0f} %" if expected.error >= 0.005 else "under 1 %"
    return (
        f"{error} of a small model ({100 * low:.0f} to "
        f"{100 * high:.0f} %), fitted on "
        f"{len(relation.points)} data sets ({relation.embedding}, volume {relation.volume}): "
        f"r = {relation.r:.2f}, {chance}; one left out is missed by "
        f"{100 * relation.left_out:.1f} points, foreign data by {100 * foreign:.1f}"
    )


def _kept_text(found: KeptLearnability | None) -> str:
    if found is None:
        return ""
    kept, dropped = (
        "none" if mean is None else f"{mean:.3f}" for mean in (found.kept, found.dropped)
    )
    unknown = f"; {found.unknown} in no record, kept" if found.unknown else ""
    return f" (mean learnability {kept}, of those left out {dropped}{unknown})"


def sampling_text(report: SamplingReport) -> str:
    """Return how learnability decided what was trained on."""
    if report.weights is None:
        shares = ", ".join(percent(share) for share in report.shares[:6])
        rest = ", ..." if len(report.shares) > 6 else ""
        return f"{report.kind}: {shares}{rest} of {report.images} images, updates as without"
    low, high = report.weights
    return (
        f"{report.kind}: {report.images} images, with replacement, weights {low:.2f} to {high:.2f}"
    )


def _embedding_text(settings: Mapping[str, Any]) -> str:
    return (
        f"{settings['embedding']} ({settings['embedding_steps']}); {settings['samples']} images of "
        f"every class, {settings['neighbours']} neighbours, volume {settings['volume']}, "
        f"{settings['repeats']} draws of {settings['images']} images"
    )


def _class_parts(dataset: DatasetAnalysis, rows: int | None) -> Parts:
    """Return the classes, the hardest first, what they are taken for, and the images to look at."""
    pairs = grid("confused classes", ">similarity")
    for first, second, similarity in dataset.confused_pairs[: rows and 5]:
        pairs.add_row(f"{first} and {second}", f"{similarity:.3f}")
    hardest = sorted(dataset.difficulty, key=lambda entry: -entry.others)
    classes = grid("class", ">images", ">neighbours of other classes", "")
    counts = {entry.name: entry.count for entry in dataset.classes}
    for entry in hardest[:rows]:
        bar = BAR * round(20 * entry.others)
        count = str(counts.get(entry.name, ""))
        classes.add_row(shorten(entry.name), count, percent(entry.others), bar)
    add_rest(classes, len(hardest), rows, "classes")
    images = grid("images to check", "class", "looks like")
    # The worst of every class first, then the second of every class, and so on.
    seen: Counter[str] = Counter()
    turns = []
    for image in dataset.confusing:
        turns.append((seen[image.name], -image.share))
        seen[image.name] += 1
    worst = [
        image for _, image in sorted(zip(turns, dataset.confusing, strict=True), key=itemgetter(0))
    ]
    for image in worst[: rows and 5]:
        images.add_row(shorten(image.path, 46), image.name, image.looks_like)
    return [
        *([classes] if hardest else []),
        *([pairs] if dataset.confused_pairs else []),
        *([images] if worst else []),
    ]


def _reduction_table(reduction: Reduction) -> Table:
    table = grid(">images per class", ">CSG", ">sd", "")
    highest = max(*(step.score for step in reduction.steps), reduction.whole, 1e-12)
    for step in reduction.steps:
        mark = " *" if step.images_per_class == reduction.smallest else ""
        table.add_row(
            f"{step.images_per_class}{mark}",
            f"{step.score:.3f}",
            f"{step.deviation:.3f}",
            BAR * round(30 * step.score / highest),
        )
    found = (
        "no smaller subset keeps it"
        if reduction.smallest is None
        else "* the smallest subset that keeps it"
    )
    table.caption = (
        f"plain votes; all images give {reduction.whole:.3f}; {found} within "
        f"{percent(reduction.tolerance)}"
    )
    return table
