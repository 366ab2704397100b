"""What `compress` can be asked for: wishes about the result, and how it is looked for."""

from dataclasses import dataclass
from functools import partial

from prunecli.options import shared
from prunecli.options.declare import needs, option
from prunecli.options.finetune import LABELS, OUTPUTS

_wish = partial(option, panel=shared.WISHES, basic=True)
_search = partial(option, panel=shared.SEARCH)
ON_IMAGES = needs("data", hint="add --data images/")


@dataclass(frozen=True)
class WishOptions:
    """What the result is to be, as people write it (`prunecli.compression.wishes`)."""

    speedup: float | None = _wish(
        None,
        "How many times as fast as the original, in ONNX Runtime on this CPU (2).",
        metavar="FACTOR",
        minimum=1,
    )
    max_drop: float | None = _wish(
        None,
        "Maximum drop in accuracy (0.01 or 1%); without labels, in agreement with the original. "
        "Without a budget, the smallest model within it.",
        metavar="FRACTION",
        form="share",
        needs=(ON_IMAGES,),
    )
    flops: str | None = _wish(
        None, "FLOPs to keep: a fraction (0.5, 50%) or an amount (150M).", metavar="KEEP"
    )
    params: str | None = _wish(
        None, "Parameters to keep: a fraction or an amount (1.5M).", metavar="KEEP"
    )
    size: str | None = _wish(
        None, "Size of the file: a fraction to keep or an amount (4MB).", metavar="KEEP"
    )
    latency: str | None = _wish(
        None, "Latency in ONNX Runtime on this CPU: a fraction to keep or a time (5ms).",
        metavar="KEEP",
    )  # fmt: skip


@dataclass(frozen=True)
class CompressOptions:
    """How the result is looked for.

    The one that is kept trains for `epochs`, those that are tried on the way for `trial_epochs`;
    0 repairs without training. At most `trials` are tried. `minutes` bounds all of it (None: as
    long as it takes). With `new_head` the model is given a classifier for the classes of the data
    first, and trained for as many epochs as the result is. With `int8` the ONNX file is quantised,
    and judged. `batch` and `threads` say what a latency is measured of, `limit` how many training
    images are used.
    """

    epochs: int = option(
        3,
        "Epochs that the result is trained for. 0 repairs it without training.",
        metavar="N",
        minimum=0,
        panel=shared.TRAINING,
        basic=True,
        needs=(ON_IMAGES,),
    )
    loss: str = option(
        LABELS,
        "What is trained for, and judged by. 'labels': those of the data, where there are any. "
        "'outputs': agreement with the original, whatever the labels.",
        metavar="KIND",
        choices=(LABELS, OUTPUTS),
        panel=shared.TRAINING,
        needs=(ON_IMAGES,),
    )
    trial_epochs: int = _search(
        1,
        "Epochs that a model is trained for on the way to the smallest within --max-drop.",
        metavar="N",
        minimum=0,
        needs=(needs("max_drop", hint="add --max-drop 1%"),),
    )
    trials: int = _search(
        5,
        "Models to try on the way to the smallest within --max-drop.",
        metavar="N",
        minimum=1,
        needs=(needs("max_drop", hint="add --max-drop 1%"),),
    )
    minutes: float | None = _search(
        None,
        "Stop looking in time to be done after about N minutes.",
        metavar="N",
        minimum=0.1,
        basic=True,
    )
    new_head: bool = shared.new_head(
        panel=shared.TRANSFER,
        needs=(
            ON_IMAGES,
            needs("loss", LABELS, hint="leave --loss outputs out: a classifier takes labels"),
        ),
    )
    int8: bool = option(
        False,
        "Write the ONNX file in INT8; --size, the speed and the drop are those of that file.",
        panel=shared.PRECISION,
        basic=True,
        needs=(ON_IMAGES,),
    )
    batch: int = option(1, "Batch size of latencies.", metavar="N", minimum=1, panel=shared.TIMING)
    threads: int | None = shared.threads(panel=shared.TIMING)
    limit: int | None = option(
        None,
        "Maximum number of training images.",
        metavar="N",
        minimum=1,
        panel=shared.DATA,
        basic=True,
        needs=(ON_IMAGES,),
    )
    seed: int = shared.seed()
