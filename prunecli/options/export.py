"""What `export` can be asked for."""

from dataclasses import dataclass
from functools import partial

from prunecli.options import shared
from prunecli.options.declare import Needs, excluded_by, needs, option
from prunecli.options.names import Names

TIMED = needs("benchmark", hint="leave --no-benchmark out")
CONVERTED = Needs({"int8": bool, "fp16": bool}, hint="add --int8, or --fp16")
_timing = partial(option, panel=shared.TIMING, needs=(TIMED,))
_int8 = partial(option, panel=shared.PRECISION, needs=(needs("int8"),))


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
    runtimes: tuple[str, ...] = _timing(
        ("onnxruntime",),
        "Runtimes: onnxruntime, openvino (on the CPU), tensorrt (on cuda).",
        metavar="NAME,NAME",
        flags="--runtime",
        form="names",
        names=Names("runtime"),
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
    int8: bool = option(
        False,
        "Quantise to INT8, calibrated on the training images of --data and compared with float on "
        "its other images.",
        panel=shared.PRECISION,
        basic=True,
        needs=(needs("data", hint="add --data images/"), excluded_by("fp16")),
    )
    fp16: bool = option(
        False,
        "Write half precision, for GPUs. With --data, compared with float on images.",
        panel=shared.PRECISION,
        basic=True,
        needs=(excluded_by("int8"),),
    )
    max_drop: float | None = option(
        None,
        "Leave the most sensitive layers in float until INT8 loses at most this much accuracy "
        "against float (0.01 or 1%); without labels, this share of the same classes.",
        metavar="FRACTION",
        form="share",
        panel=shared.GATES,
        basic=True,
        needs=(needs("int8"),),
    )
    calibration: int = _int8(128, "Images to calibrate on.", metavar="N", minimum=1)
    reduce_range: str = _int8(
        "auto",
        "Weights of 7 bits, for x86 processors without VNNI, whose sums overflow in 16 bits: auto "
        "(where this processor is one), yes or no.",
        metavar="WHEN",
        choices=("auto", "yes", "no"),
    )
    limit: int = option(
        1000,
        "Maximum number of images to compare with float on.",
        metavar="N",
        minimum=2,
        panel=shared.PRECISION,
        needs=(needs("data", hint="add --data images/"),),
    )
    dynamic_size: bool = option(
        False,
        "Leave height and width free, for images of other sizes.",
        panel=shared.OUTPUT,
    )

    @property
    def precision(self) -> str:
        """What is written beside float: `int8`, `fp16`, or nothing."""
        return "int8" if self.int8 else "fp16" if self.fp16 else ""
