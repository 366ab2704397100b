"""The model zoos of the coverage sweep: which models, on which input, with which random weights.

Random weights prove nothing where they are constant (a norm's weight of one, a layer scale of
1e-6), so every constant is randomised; batch-norm statistics are calibrated and then perturbed.
"""

from __future__ import annotations

import csv
import inspect
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TIMM_TABLE = Path(__file__).with_name("zoo_timm_models.csv")
"""One architecture a timm module: the smallest; written by `choose_timm`."""

CLASSIFICATION, DENSE, DETECTION, VIDEO, FLOW = (
    "classification", "segmentation", "detection", "video", "flow",
)  # fmt: skip

KINDS = {
    "torchvision.models.segmentation": DENSE,
    "torchvision.models.detection": DETECTION,
    "torchvision.models.video": VIDEO,
    "torchvision.models.optical_flow": FLOW,
}
"""What a torchvision model is for, by the package that defines it."""

DETECTION_SIDES = {"ssd300": 300, "ssdlite320": 320, "mobilenet_v3_large_320": 320}
"""Side of the image by a part of the model's name; the others are published at 800."""

FRAMES = 16
FLOW_SIDE = 128
"""The smallest images that RAFT takes."""

BATCH = 4
"""Images in one pass of the calibration."""


@dataclass(frozen=True)
class Entry:
    """One model of a zoo; `shape` is that of one input with a batch of one."""

    source: str
    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int = 0

    @property
    def key(self) -> str:
        """`source/name`, unique over the zoos."""
        return f"{self.source}/{self.name}"

    def example(self) -> list[Tensor]:
        """Return the example inputs."""
        generator = torch.Generator().manual_seed(0)
        count = 2 if self.kind == FLOW else 1
        return [torch.randn(self.shape, generator=generator) for _ in range(count)]

    def build(self) -> nn.Module:
        """Return the model with random weights, prepared for a proof, in evaluation mode."""
        torch.manual_seed(0)
        model = BUILDERS[self.source](self.name).eval()
        prepare_(model, self.example())
        return model


# --- which models --------------------------------------------------------------------------------


def torchvision_entries() -> list[Entry]:
    """Return every torchvision model but the quantised ones."""
    from torchvision.models import get_model_builder, list_models

    entries = []
    for name in list_models():
        package = get_model_builder(name).__module__
        if ".quantization" in package:
            continue
        kind = next((kind for prefix, kind in KINDS.items() if package.startswith(prefix)), None)
        kind = kind or CLASSIFICATION
        weights = _published(name)
        count = int(weights.meta["num_params"]) if weights is not None else 0
        entries.append(Entry("torchvision", name, kind, SHAPES[kind](name, weights), count))
    return entries


def _published(name: str) -> Any:
    """Return the published weights with the smallest image: the size of the constructor."""
    from torchvision.models import get_model_weights

    return min(get_model_weights(name), key=_crop, default=None)


def _crop(weights: Any) -> tuple[int, int]:
    transform = weights.transforms()
    size = getattr(transform, "crop_size", None) or getattr(transform, "resize_size", 0)
    size = list(size) if isinstance(size, list | tuple) else [size]
    return (int(size[0]), int(size[-1]))


def _detection_shape(name: str, _: Any) -> tuple[int, ...]:
    side = next((side for part, side in DETECTION_SIDES.items() if part in name), 800)
    return (1, 3, side, side)


SHAPES: dict[str, Callable[[str, Any], tuple[int, ...]]] = {
    CLASSIFICATION: lambda _, weights: (1, 3, *_crop(weights)),
    DENSE: lambda _, weights: (1, 3, _crop(weights)[0], _crop(weights)[0]),
    DETECTION: _detection_shape,
    VIDEO: lambda _, weights: (1, 3, FRAMES, *_crop(weights)),
    FLOW: lambda *_: (1, 3, FLOW_SIDE, FLOW_SIDE),
}


def timm_entries() -> list[Entry]:
    """Return one architecture for each of timm's model modules, as the table says."""
    with TIMM_TABLE.open(newline="") as file:
        return [
            Entry(
                "timm",
                row["model"],
                CLASSIFICATION,
                (1, *(int(size) for size in row["input"].split("x"))),
                int(row["parameters"]),
            )
            for row in csv.DictReader(file)
        ]


def choose_timm() -> None:
    """Write the table of the smallest architecture of every timm module, but for test models."""
    rows = []
    for module, names in sorted(_timm_modules().items()):
        counts = {name: _count_parameters(name) for name in names}
        name = min(counts, key=lambda name: (counts[name], name))
        size = "x".join(str(side) for side in _timm_input(name))
        rows.append({"module": module, "model": name, "parameters": counts[name], "input": size})
        print(rows[-1], flush=True)
    with TIMM_TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("module", "model", "parameters", "input"))
        writer.writeheader()
        writer.writerows(rows)


def _timm_modules() -> dict[str, list[str]]:
    import timm

    modules = defaultdict(list)
    for name in timm.list_models():
        if not name.startswith("test_"):
            modules[timm.model_entrypoint(name).__module__.rpartition(".")[2]].append(name)
    return modules


def _count_parameters(name: str) -> int:
    """Count on the meta device; a model that computes in its constructor is built in full."""
    import timm

    for device in ("meta", "cpu"):
        try:
            with warnings.catch_warnings(), torch.device(device):
                warnings.simplefilter("ignore")
                return sum(value.numel() for value in timm.create_model(name).parameters())
        except (RuntimeError, NotImplementedError, TypeError, ValueError):
            continue
    raise RuntimeError(f"{name} cannot be built")


def _timm_input(name: str) -> tuple[int, ...]:
    import timm

    return tuple(timm.get_pretrained_cfg(name).to_dict()["input_size"])


ENTRIES = {"torchvision": torchvision_entries, "timm": timm_entries}


# --- build ---------------------------------------------------------------------------------------


def _build_torchvision(name: str) -> nn.Module:
    from torchvision.models import get_model, get_model_builder

    known = inspect.signature(get_model_builder(name)).parameters
    arguments = {"weights_backbone": None} if "weights_backbone" in known else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_model(name, weights=None, **arguments)


def _build_timm(name: str) -> nn.Module:
    import timm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return timm.create_model(name)


BUILDERS = {"torchvision": _build_torchvision, "timm": _build_timm}


# --- weights that hide nothing -------------------------------------------------------------------


def prepare_(model: nn.Module, example: Sequence[Tensor], *, seed: int = 0) -> None:
    """Randomise every constant parameter; calibrate batch norms on noise and perturb them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.is_floating_point() and bool((value == value.flatten()[0]).all()):
                _randomize_constant_(value, name, generator)
        norms = [module for module in model.modules() if _has_statistics(module)]
        if norms:
            _calibrate_(model, norms, example, generator)
        for norm in norms:
            spread = norm.running_var.sqrt()
            norm.running_mean += 0.2 * spread * (_uniform(spread, generator) - 0.5)
            norm.running_var *= 0.7 + 0.6 * _uniform(spread, generator)


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=like.dtype)


def _randomize_constant_(value: Tensor, name: str, generator: torch.Generator) -> None:
    """Draw around a constant that matters; give one near zero the size that it has in training."""
    constant = float(value.flatten()[0])
    noise = _uniform(value, generator)
    is_matrix = sum(size > 1 for size in value.shape) > 1
    if abs(constant) >= 0.05:
        value.mul_(0.5 + noise)
    elif is_matrix:
        value.copy_((noise - 0.5) * 2 * (3 / max(value[0].numel(), 1)) ** 0.5)
    elif name.endswith("bias"):
        value.copy_((noise - 0.5) * 0.4)
    else:
        value.copy_(0.3 + 0.4 * noise)


def _calibrate_(
    model: nn.Module,
    norms: Sequence[nn.Module],
    example: Sequence[Tensor],
    generator: torch.Generator,
) -> None:
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for _ in range(2):
        _forward(model, example, generator)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _forward(model: nn.Module, example: Sequence[Tensor], generator: torch.Generator) -> Any:
    """Run on noise: on smaller images where the network takes them."""
    failure: Exception | None = None
    for inputs in noise_inputs(example, batch=BATCH, generator=generator):
        with SmallDetection(model):
            try:
                return model(*inputs)
            except Exception as error:
                failure = error
    raise RuntimeError(f"the model does not run on noise: {failure}") from failure


def noise_inputs(
    example: Sequence[Tensor], *, batch: int, generator: torch.Generator | None = None
) -> Iterator[list[Tensor]]:
    """Yield inputs with sides of about half of the example's, and then ones of its size."""
    generator = generator or torch.Generator().manual_seed(1)
    for smaller in (True, False):
        yield [
            torch.randn((batch, *_sides(value.shape[1:], smaller=smaller)), generator=generator)
            for value in example
        ]


def _sides(shape: Sequence[int], *, smaller: bool) -> tuple[int, ...]:
    sides = (max(96, side // 2 // 32 * 32) if smaller else side for side in shape[-2:])
    return (*shape[:-2], *sides)


HEADS = (
    "head", "rpn.head", "roi_heads.box_predictor", "roi_heads.mask_predictor",
    "roi_heads.keypoint_predictor",
)  # fmt: skip
"""Parts of a detector whose outputs are compared: random weights detect nothing."""


def raw_outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[Any]:
    """Return what the heads of a detector compute before boxes are chosen, and its outputs."""
    known = dict(model.named_modules())
    seen: list[Any] = []
    hooks = [
        known[name].register_forward_hook(lambda _, __, output: seen.append(output))
        for name in HEADS
        if name in known
    ]
    try:
        with SmallDetection(model):
            output = model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return seen or [output]


class SmallDetection:
    """Let a detector, which resizes its images, see small ones meanwhile."""

    def __init__(self, model: nn.Module) -> None:
        self.transform = getattr(model, "transform", None)

    def __enter__(self) -> None:
        names = ("min_size", "max_size")
        self.sizes = tuple(getattr(self.transform, name, None) for name in names)
        if self.sizes[0] is not None:
            self.transform.min_size, self.transform.max_size = (256,), 320

    def __exit__(self, *_: object) -> None:
        if self.sizes[0] is not None:
            self.transform.min_size, self.transform.max_size = self.sizes
