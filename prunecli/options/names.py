"""The names that options take, known without importing what is registered under them.

The registries import torch, and a misspelt name is told before that; so is completion. A test holds
this table equal to the registries. Names of installed plugins are in the registries alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prunecli.errors import InputError

REGISTERED: Mapping[str, tuple[str, ...]] = {
    "signal": (
        "l1", "l2", "magnitude", "bn-gamma", "geometric-median", "taylor", "fisher",
        "reconstruction", "random", "min-weight", "mean-activation", "apoz", "average-gradient",
        "taylor-share", "taylor-2019", "fisher-per-flop", "obd", "snip", "mean-replacement",
        "removal", "l1-input", "taylor-flops", "fisher-flops", "lamp",
    ),
    "base input": (
        "weight", "activation", "activation-before", "weight-batch", "weight-input",
        "weight-input-batch",
    ),
    "pointwise metric": (
        "value", "gradient", "taylor", "hessian-approx1", "hessian-approx2", "taylor2-approx1",
        "taylor2-approx2", "positive", "mean-replacement",
    ),
    "reduction": (
        "none", "l1", "l2", "abs-sum", "sqr-sum", "abs-sum-kernels", "sqr-sum-kernels",
    ),
    "scaling": (
        "none", "l0", "l0-adjusted", "l0-2019", "l1", "l2", "weights-removed", "flops-removed",
        "latency-removed",
    ),
    "aggregate": ("sum", "mean", "max", "first"),
    "allocation": (
        "uniform", "uniform-plus", "global", "greedy", "knapsack", "erdos-renyi",
        "inverse-importance", "proportional-importance",
    ),
    "weight allocation": (
        "uniform", "uniform-plus", "erdos-renyi", "global", "lamp", "inverse-importance",
        "proportional-importance",
    ),
    "importance": ("probe", "sensitivity", "energy"),
    "repair": ("bn", "bias", "lstsq"),
    "pruning method": (
        "one-shot", "iterative", "exact-gates", "bar", "gates", "gradual", "slimming",
        "group-lasso", "dynamic",
    ),
    "embedding": ("raw", "pca", "tsne", "autoencoder", "model"),
    "volume": ("box", "none"),
    "complexity score": ("csg", "auls"),
    "subset rule": ("random", "confusion", "hardest"),
    "optimizer": ("sgd", "adam", "adamw"),
    "schedule": ("one-cycle", "cosine", "linear", "step", "constant"),
    "regularizer": ("bridgeout", "bridgeout-linear", "dropout"),
    "sparsity schedule": ("cubic", "linear", "at-once"),
    "augmentation": (
        "none", "flip", "crop", "crop-flip", "imagenet", "randaugment", "mixup", "cutmix",
    ),
    "device": ("cpu", "cuda"),
    "runtime": ("onnxruntime", "openvino", "tensorrt"),
    "export format": ("onnx",),
    "data format": (
        "mnist-idx", "cifar-batches", "hugging-face", "segmentation", "csv", "image-folder", "npz",
    ),
}  # fmt: skip
"""Names by the kind of thing that they stand for, the usual ones first."""

OTHER_KINDS = (
    "architecture", "calibration", "cost", "flop count", "form of the expected error", "layer rule",
    "operator",
)  # fmt: skip
"""Kinds of which no option takes names, or whose names are known without torch."""

LOOKING_AT_IMAGES: Mapping[str, frozenset[str]] = {
    "signal": frozenset(
        {
            "mean-activation", "apoz", "average-gradient", "taylor", "taylor-share", "taylor-2019",
            "fisher", "fisher-per-flop", "obd", "snip", "mean-replacement", "removal",
            "taylor-flops", "fisher-flops", "reconstruction",
        }
    ),
    "base input": frozenset({"activation", "activation-before"}),
    "pointwise metric": frozenset(
        {
            "gradient", "taylor", "hessian-approx1", "hessian-approx2", "taylor2-approx1",
            "taylor2-approx2", "mean-replacement",
        }
    ),
    "importance": frozenset({"probe", "sensitivity"}),
}  # fmt: skip
"""Those of them that cannot do without images."""

SIGNAL_PARTS = ("base input", "pointwise metric", "reduction", "scaling")
"""What a signal that has no name of its own is put together from, with slashes between."""

Read = Callable[[str], Iterator[tuple[str, str]]]
"""Yields the (kind, name) pairs in what was typed; the kind is empty for the option's own."""


def signal_parts(text: str) -> tuple[str, str, str, str]:
    """Return the four parts of a signal that is put together; raise `InputError` if it is none."""
    parts = text.split("/")
    if len(parts) != len(SIGNAL_PARTS):
        raise InputError(
            f"{text!r} is not a signal",
            code="BAD_SIGNAL",
            hint="use a preset (prunecli methods) or base_input/pointwise_metric/reduction/scaling",
        )
    first, second, third, fourth = parts
    return first, second, third, fourth


def looks_at_images(signal: str) -> bool:
    """Tell whether a signal looks at images.

    >>> looks_at_images("taylor"), looks_at_images("weight/value/l1/none")
    (True, False)
    """
    parts = (
        zip(SIGNAL_PARTS, signal_parts(signal), strict=True)
        if "/" in signal
        else [("signal", signal)]
    )
    return any(name in LOOKING_AT_IMAGES.get(kind, ()) for kind, name in parts)


def one(text: str) -> Iterator[tuple[str, str]]:
    """Read one name."""
    yield "", text


def signals(text: str) -> Iterator[tuple[str, str]]:
    """Read signals with commas between, each a name or put together from four parts.

    >>> list(signals("l1,weight/value/l1/none"))[:2]
    [('', 'l1'), ('base input', 'weight')]
    """
    for name in (part.strip() for part in text.split(",")):
        if "/" in name:
            yield from zip(SIGNAL_PARTS, signal_parts(name), strict=True)
        else:
            yield "", name


def several(text: str) -> Iterator[tuple[str, str]]:
    """Read names with commas between."""
    yield from (("", part.strip()) for part in text.split(","))


def plus(text: str) -> Iterator[tuple[str, str]]:
    """Read names with plus signs between."""
    yield from (("", part.strip()) for part in text.split("+"))


def chain(text: str) -> Iterator[tuple[str, str]]:
    """Read names with plus signs between, each perhaps with a size behind a dash.

    >>> list(chain("autoencoder+pca-8"))
    [('', 'autoencoder'), ('', 'pca')]
    """
    for link in text.split("+"):
        name, dash, size = link.rpartition("-")
        yield "", name if dash and size.isascii() and size.isdigit() else link


@dataclass(frozen=True)
class Names:
    """The names that an option takes: those registered under a kind, and words of its own.

    `kind` may follow from other options, whose values it is given by name. `read` finds the names
    in what was typed.
    """

    kind: str | Callable[[Mapping[str, Any]], str]
    words: tuple[str, ...] = ()
    read: Read = one

    def kind_of(self, given: Mapping[str, Any]) -> str:
        """Return the kind of the names, by the options that are `given`."""
        return self.kind if isinstance(self.kind, str) else self.kind(given)

    @property
    def offered(self) -> tuple[str, ...]:
        """The names that completion offers."""
        return (*REGISTERED[self.kind_of({})], *self.words)
