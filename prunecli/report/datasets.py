"""What the analysis of a data set reports, and that of records of training on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prunecli.report.models import ModelAnalysis


@dataclass(frozen=True)
class ClassCount:
    """One class and its number of images."""

    name: str
    count: int


@dataclass(frozen=True)
class ClassDifficulty:
    """How hard a class is to tell from the others.

    `others` is the share of neighbours from other classes, `overlap` the sum of its similarities
    with them, `entropy` (bits) how many classes it is similar to.
    """

    name: str
    others: float
    overlap: float
    entropy: float


@dataclass(frozen=True)
class ConfusingImage:
    """An image most of whose neighbours are of another class: `share` of them are `looks_like`.

    `neighbour` is the nearest of these.
    """

    path: str
    name: str
    looks_like: str
    share: float
    neighbour: str = ""


@dataclass(frozen=True)
class ReductionStep:
    """The complexity of random subsets of one size: mean and standard deviation over draws."""

    images_per_class: int
    score: float
    deviation: float


@dataclass(frozen=True)
class Reduction:
    """Complexity against images per class.

    `smallest` is the least size whose score stays within `tolerance` (a share of `whole`, the score
    of all images), as those of all larger ones do; None where no smaller set keeps it.
    """

    steps: tuple[ReductionStep, ...]
    whole: float
    tolerance: float
    smallest: int | None


@dataclass(frozen=True)
class KeptLearnability:
    """Mean learnability of the images of a subset and of those left out; None for no image.

    `unknown` images of the subset are in no record.
    """

    kept: float | None
    dropped: float | None
    unknown: int


@dataclass(frozen=True)
class Subset:
    """A part of a data set that was written: `images` of them, by `rule`, `per_class` at most."""

    path: Path
    images: int
    per_class: int
    rule: str
    learnability: KeptLearnability | None = None


@dataclass(frozen=True)
class FittedPoint:
    """One data set that a relation was fitted on: its CSG, and the test error of the network.

    `foretold` is the error predicted for it when no variant of the same data is fitted.
    """

    name: str
    data: str
    classes: int
    images_per_class: float
    csg: float
    error: float
    foretold: float


@dataclass(frozen=True)
class Relation:
    """How the test error of one small network followed the CSG over data sets.

    `predicted` = a + b `predictor`, and perhaps + c log10 of the images per class: `coefficients`.
    `r` and `p` are those of the fit, `left_out` is how far it misses a data set that it was not
    fitted on (mean of the sizes), `families_left_out` the same when no variant of that data was
    fitted on, by the data's name. Errors are fractions.
    """

    embedding: str
    volume: str
    predicted: str
    predictor: str
    coefficients: tuple[float, ...]
    r: float
    p: float
    left_out: float
    families_left_out: Mapping[str, float]
    network: str
    training: str
    points: tuple[FittedPoint, ...]


@dataclass(frozen=True)
class ExpectedError:
    """The test error that a small network would have on a data set, with its 95 % interval.

    It is read off `relation` at `csg`. Both are None where no estimate is possible, and `outside`
    says why: the data is unlike what was fitted on, or its CSG was measured in another way.
    """

    error: float | None
    interval: tuple[float, float] | None
    outside: tuple[str, ...]
    relation: Relation | None
    csg: float | None = None


@dataclass(frozen=True)
class LearnabilityPair:
    """How far two records agree about which images are hard (`prunecli.learnability.Agreement`).

    A correlation is None where one of both does not vary. `counts` are images by their learnability
    in the first run (rows) and in the second, in equal steps from 0 to 1.
    """

    first: str
    second: str
    images: int
    pearson: float | None
    spearman: float | None
    overlap: float
    always_right: int
    pearson_wrong: float | None
    spearman_wrong: float | None
    counts: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class LearnedRun:
    """One record: mean learnability, images never classified correctly, mean forgetting events.

    `levels` are the images that were correct after none of the epochs, after one, and so on.
    """

    name: str
    network: str
    images: int
    epochs: int
    scored: str
    learnability: float
    never: int
    always: int
    forgetting: float
    levels: tuple[int, ...] = ()


@dataclass(frozen=True)
class HardImage:
    """An image with its mean learnability over all records, and its class."""

    path: str
    name: str
    learnability: float


@dataclass(frozen=True)
class LearnabilityReport:
    """What records of several runs say about the images of a data set.

    `hardest` are the least learnable on average; `label_errors` those of them that no model
    classified correctly at the end, whose labels should be checked.
    """

    runs: tuple[LearnedRun, ...]
    pairs: tuple[LearnabilityPair, ...]
    hardest: tuple[HardImage, ...]
    label_errors: tuple[HardImage, ...]


@dataclass(frozen=True)
class DatasetAnalysis:
    """What `analyze data/` finds.

    `balance` is the smallest class over the largest; `duplicates` are groups of equal images,
    `near_duplicates` of almost equal ones, `kinds` counts what is unusual (`tiny`, `animated`).
    `csg` is the mean over repeats with its 95 % interval, `similarity` the symmetric class matrix W
    of the CSG paper and `eigenvalues` its spectrum, both means over repeats. `csg_votes` is the
    same score from neighbours counted without density weights, and `confused_pairs` are the most
    similar classes by these counts: both vary less and do not depend on the scale of pixels. So do
    `difficulty`, `class_map` (places in a plane, similar classes near each other) and `confusing`.
    `looked_at` images were opened for `unreadable`, `duplicates`, `near_duplicates` and `kinds`,
    whose names are in `listed` (the first thousand of a kind); None for features.
    """

    path: str
    format: str
    images: int
    classes: tuple[ClassCount, ...]
    sizes: Mapping[str, int]
    balance: float
    unreadable: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]
    csg: float
    csg_interval: tuple[float, float]
    csg_settings: Mapping[str, Any]
    eigenvalues: tuple[float, ...]
    similarity: tuple[tuple[float, ...], ...]
    confused_pairs: tuple[tuple[str, str, float], ...]
    csg_votes: float | None = None
    csg_votes_interval: tuple[float, float] | None = None
    csg_deviation: float | None = None
    difficulty: tuple[ClassDifficulty, ...] = ()
    class_map: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    confusing: tuple[ConfusingImage, ...] = ()
    reduction: Reduction | None = None
    subset: Subset | None = None
    near_duplicates: tuple[tuple[str, ...], ...] = ()
    kinds: Mapping[str, int] = field(default_factory=dict)
    expected: ExpectedError | None = None
    listed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    looked_at: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class MaskClass:
    """A class of masks: in how many images it is, and its share of the pixels not ignored."""

    name: str
    images: int
    pixels: float


@dataclass(frozen=True)
class MaskAnalysis:
    """What `analyze data/` finds of images with masks (`format` is `segmentation`).

    `images` are those of every split, `sizes` how many images have which size, `ignored` the share
    of all pixels with the id 255.
    """

    path: str
    format: str
    images: Mapping[str, int]
    sizes: Mapping[str, int]
    classes: tuple[MaskClass, ...]
    ignored: float
    unreadable: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnalyzeReport:
    """The outcome of `analyze`, of a model, of a data set, or of both.

    A data set with masks in place of labels is told in `masks`, and `dataset` is None.
    """

    model: ModelAnalysis | None
    dataset: DatasetAnalysis | None
    seconds: float
    warnings: tuple[str, ...] = ()
    learnability: LearnabilityReport | None = None
    pictures: tuple[Path, ...] = ()
    page: Path | None = None
    masks: MaskAnalysis | None = None
