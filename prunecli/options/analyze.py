"""What `analyze` can be asked for."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prunecli.options import shared
from prunecli.options.declare import group, is_given, needs, option
from prunecli.options.methods import METHOD_DEFAULTS, ONE_SHOT
from prunecli.options.names import Names, chain, signals

DATA_NAMED = needs("data", hint="add --data images/")
MODEL_NAMED = needs("model", hint="add --model FILE")
SUBSET_WRITTEN = needs("write_subset", hint="add --write-subset smaller/")
IMAGES, OF_DATA = 256, 10_000
"""Images that a model is scored on, and that a complexity is measured on."""

_dataset = partial(option, panel=shared.DATASET)
_model = partial(option, panel=shared.MODEL, needs=(MODEL_NAMED,))


@dataclass(frozen=True)
class ComplexityOptions:
    """How hard a data set is measured to be (`prunecli.complexity`).

    `embedding` None takes a few principal components; `samples` are drawn per class `repeats`
    times, of at most `limit` images (None: all); `memory` is the bytes that temporary arrays may
    take together, `device` where neighbours are looked for and an autoencoder is trained (`auto`: a
    GPU if any). At most `survey` images (None: all) are looked at for broken, odd and equal ones.
    `reduce` measures how small the set could be within `tolerance`; `subset` is where a part of it
    is written (a folder, or a list ending in .txt), `per_class` images of every class (None: what
    the reduction found) chosen by `subset_rule`.
    """

    embedding: str | None = _dataset(
        None,
        "Feature embedding: raw, pca-N, tsne, autoencoder, model, or a chain (autoencoder+tsne). "
        "Default: pca-5.",
        metavar="NAME",
        basic=True,
        names=Names("embedding", read=chain),
    )
    epochs: int = _dataset(
        10,
        "Training epochs of the autoencoder. The paper uses 100.",
        metavar="N",
        minimum=1,
        flags="--embedding-epochs",
        needs=(
            needs(
                "embedding",
                test=lambda name: "autoencoder" in (name or ""),
                hint="add --embedding autoencoder",
            ),
        ),
    )
    samples: int = _dataset(250, "Images drawn per class.", metavar="M", minimum=1)
    neighbours: int = _dataset(3, "Nearest neighbours per image.", metavar="K", minimum=1)
    volume: str = _dataset(
        "box",
        "Volume of a neighbourhood: box (as in the reference), or none (plain votes).",
        metavar="NAME",
        names=Names("volume"),
    )
    variant: str = _dataset(
        "csg",
        "Score: csg, or auls (area under the same spectrum).",
        metavar="NAME",
        names=Names("complexity score"),
    )
    repeats: int = _dataset(30, "Random draws to average.", metavar="N", minimum=1)
    limit: int | None = OF_DATA
    memory: int = _dataset(
        10**9, "Memory for temporary arrays (512MB).", metavar="BYTES", form="bytes"
    )
    survey: int | None = _dataset(
        100_000,
        "Images checked for broken, odd, duplicate and near-duplicate files.",
        metavar="N|all",
        form="count-or-all",
    )
    device: str = _dataset(
        "auto",
        "Device for the nearest-neighbour search: auto (a GPU if available), cpu or cuda. The "
        "result is the same on all.",
        metavar="NAME",
        suggested=("auto", "cpu", "cuda"),
    )
    reduce: bool = _dataset(
        False,
        "Measure how small the data set could be: complexity against images per class.",
        basic=True,
    )
    tolerance: float = _dataset(
        0.1, "How much the score may change.", metavar="FRACTION", needs=(needs("reduce"),)
    )
    subset: str | None = _dataset(
        None,
        "Write a class-balanced subset: a folder of hard links, or a list.",
        metavar="DIR|LIST.txt",
        trusts=is_given,
        flags="--write-subset",
        basic=True,
    )
    subset_rule: str = _dataset(
        "random",
        "How the subset is chosen: random, confusion, or hardest (drops the easiest images by "
        "--learnability).",
        metavar="NAME",
        names=Names("subset rule"),
        needs=(SUBSET_WRITTEN,),
    )
    per_class: int | None = _dataset(
        None,
        "Images per class in the subset (default: what --reduce finds).",
        metavar="N",
        minimum=1,
        needs=(SUBSET_WRITTEN,),
    )


@dataclass(frozen=True)
class AnalyzeOptions:
    """How much `analyze` looks at.

    `oracle` measures what removing each channel alone does to the loss, and how `signals` (some
    well-known ones, if there are none) rank the channels beside that. `importance` measures every
    importance of the layers, and how much they agree. `learnability` are records of training runs
    (`prunecli.learnability`) that are compared. `dead_threshold` adds
    channels to the dead ones as in `PruneOptions`.
    """

    signal: str = _model(
        METHOD_DEFAULTS[ONE_SHOT]["signal"],
        "Importance criterion. See 'prunecli methods signal'.",
        metavar="NAME",
        names=Names("signal", read=signals),
    )
    signals: tuple[str, ...] = option(
        (),
        "Signals to compare with the oracle (default: some well-known ones).",
        metavar="A,B,C",
        panel=shared.MODEL,
        form="names",
        names=Names("signal", read=signals),
        needs=(MODEL_NAMED, needs("oracle")),
    )
    oracle: bool = _model(
        False,
        "Measure the loss change of removing each channel alone, and rank signals by how well "
        "they predict it. Needs --data.",
        basic=True,
    )
    aggregate: str = shared.aggregate(panel=shared.MODEL, needs=(MODEL_NAMED,))
    seed: int = shared.seed()
    limit: int = option(
        IMAGES,
        f"Maximum number of images to use (default: {IMAGES} for a model; {OF_DATA} of a data set, "
        "all with --reduce).",
        metavar="N",
        minimum=1,
        panel=shared.DATA,
        basic=True,
        tells_default=True,
    )
    sensitivity: bool = option(
        True,
        "Measure loss and accuracy after pruning 25, 50 and 75 % of each group alone. Needs "
        "--data.",
        panel=shared.MODEL,
        flags="--sensitivity/--no-sensitivity",
        basic=True,
    )
    dead_threshold: float | None = shared.dead_threshold(panel=shared.MODEL, needs=(MODEL_NAMED,))
    complexity: ComplexityOptions = group(ComplexityOptions, DATA_NAMED)
    importance: bool = _model(
        False,
        "Measure the importance of each layer in three ways, and how far they agree. Needs --data.",
        basic=True,
    )
    learnability: tuple[Path, ...] = _dataset(
        (),
        "Compare records of 'finetune --record-learnability'. Repeatable.",
        metavar="FILE",
    )
