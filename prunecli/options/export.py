"""What `export` can be asked for."""

from dataclasses import dataclass
from functools import partial

from prunecli.options import shared
from prunecli.options.declare import needs, option
from prunecli.options.names import Names

TIMED = needs("benchmark", hint="leave --no-benchmark out")
_timing = partial(option, panel=shared.TIMING, needs=(TIMED,))


@dataclass(frozen=True)
class ExportOptions:
    """What `export` writes and what it times; `threads=None` takes one per physical core."""

    opset: int | None = option(
        None,
        "ONNX opset (default: 18, or the lowest that has all operators of the model).",
        metavar="N",
        minimum=7,
        panel=shared.OUTPUT,
        tells_default=True,
    )
    devices: tuple[str, ...] = _timing(
        ("cpu",),
        "Devices: cpu, cuda, or both.",
        metavar="NAME,NAME",
        flags="--device",
        form="names",
        names=Names("device"),
    )
    batches: tuple[int, ...] = _timing(
        (1, 8), "Batch sizes.", metavar="N,N", flags="--batch", form="counts", basic=True
    )
    threads: int | None = shared.threads(panel=shared.TIMING, needs=(TIMED,))
    runs: int = _timing(100, "Timed runs.", metavar="N", minimum=2)
    benchmark: bool = option(
        True,
        "Time the exported model.",
        panel=shared.TIMING,
        flags="--benchmark/--no-benchmark",
        basic=True,
    )
    tolerance: float = option(
        1e-4,
        "Maximum relative error against PyTorch.",
        metavar="X",
        minimum=0,
        panel=shared.OUTPUT,
    )
    seed: int = shared.seed()
    dynamic_size: bool = option(
        False,
        "Leave height and width free, for images of other sizes.",
        panel=shared.OUTPUT,
    )
