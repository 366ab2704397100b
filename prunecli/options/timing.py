"""What `compare` and `bench` can be asked for."""

from dataclasses import dataclass
from functools import partial

from prunecli.options import shared
from prunecli.options.declare import excluded_by, needs, option
from prunecli.options.names import Names

TIMED = excluded_by("no_latency")
ON_DATA = needs("data", hint="add --data DIR")

devices = partial(
    option,
    ("cpu",),
    "Devices: cpu, cuda, or both.",
    metavar="NAME,NAME",
    flags="--device",
    form="names",
    names=Names("device"),
    panel=shared.TIMING,
)
runtimes = partial(
    option,
    ("onnxruntime",),
    "Runtimes: onnxruntime, openvino (on the CPU), tensorrt (on cuda).",
    metavar="NAME,NAME",
    flags="--runtime",
    form="names",
    names=Names("runtime"),
    panel=shared.TIMING,
)
batches = partial(
    option,
    help="Batch sizes that are timed.",
    metavar="N,N",
    flags="--batch",
    form="counts",
    basic=True,
    panel=shared.TIMING,
)
runs = partial(option, 100, "Timed runs.", metavar="N", minimum=2, panel=shared.TIMING)


@dataclass(frozen=True)
class CompareOptions:
    """On which images models are compared, and how they are timed."""

    split: str = option(
        "auto",
        "Split: train, held_out, test, or auto (test if there is one, else held_out).",
        metavar="NAME",
        choices=shared.SPLITS,
        panel=shared.DATA,
        needs=(ON_DATA,),
    )
    batch_size: int = option(
        64, "Batch size.", metavar="N", minimum=1, panel=shared.DATA, needs=(ON_DATA,)
    )
    limit: int | None = option(
        None,
        "Maximum number of images to use.",
        metavar="N",
        minimum=1,
        panel=shared.DATA,
        basic=True,
        needs=(ON_DATA,),
    )
    no_latency: bool = option(False, "Time nothing.", panel=shared.TIMING, basic=True)
    devices: tuple[str, ...] = devices(needs=(TIMED,))
    runtimes: tuple[str, ...] = runtimes(needs=(TIMED,))
    batches: tuple[int, ...] = batches((1,), needs=(TIMED,))
    threads: int | None = shared.threads(panel=shared.TIMING, needs=(TIMED,))
    runs: int = runs(needs=(TIMED,))
    seed: int = shared.seed()


@dataclass(frozen=True)
class BenchOptions:
    """How models are timed; `threads=None` takes one per physical core."""

    devices: tuple[str, ...] = devices()
    runtimes: tuple[str, ...] = runtimes()
    batches: tuple[int, ...] = batches((1, 8))
    threads: int | None = shared.threads(panel=shared.TIMING)
    runs: int = runs()
    seconds: float = option(
        10.0,
        "Most seconds of timing, for every device and batch size.",
        metavar="S",
        minimum=0.1,
        panel=shared.TIMING,
    )
    no_memory: bool = option(False, "Leave out the peak memory of each model.", panel=shared.TIMING)
    seed: int = shared.seed()
