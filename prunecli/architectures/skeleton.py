"""Build a network without paying for random initial weights that are to be overwritten."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunecli.errors import InputError
from prunecli.lifetime.importing import importing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_RANDOM_FILLS = frozenset(
    {
        Tensor.uniform_,
        Tensor.normal_,
        Tensor.bernoulli_,
        nn.init.kaiming_uniform_,
        nn.init.kaiming_normal_,
        nn.init.uniform_,
        nn.init.normal_,
        nn.init.xavier_uniform_,
        nn.init.xavier_normal_,
    }
)


class Skeleton(TorchFunctionMode):
    """Skips random fills, and with `meta` gives uninitialised tensors no memory.

    Only `torch.empty`, which parameters are made with, goes to the meta device: constructors that
    compute with small tensors (`linspace(...).tolist()`) keep working, unlike under
    `torch.device("meta")`.
    """

    def __init__(self, *, meta: bool) -> None:
        super().__init__()
        self.meta = meta

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func in _RANDOM_FILLS:
            tensor = args[0] if args else options["tensor"]
            # Zeros rather than whatever the memory held: never a NaN, and the same every time.
            return tensor if tensor.is_meta else tensor.detach().zero_()
        if self.meta and func is torch.empty and options.get("device") is None:
            options["device"] = "meta"
        return func(*args, **options)


def call_factory(
    reference: str, arguments: Mapping[str, Any], *, device: str, with_folder: bool
) -> nn.Module:
    """Return the module that `package.module:factory` makes, in eval mode, on `cpu` or `meta`.

    `with_folder` puts the working folder on the import path meanwhile. Raises `InputError` when
    there is no such factory, when it fails, or when it returns something else.
    """
    with _working_folder_importable(enabled=with_folder):
        factory = _find_factory(reference)
        try:
            module = _called(factory, arguments, meta=device == "meta")
        except Exception as error:  # whatever the user's code raises is the user's to see
            raise InputError(
                f"{reference} failed: {type(error).__name__}: {error}",
                code="FACTORY_FAILED",
                where=f"{reference}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})",
                hint="check the arguments given with --arch-arg name=value",
            ) from error
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{reference} returned a {type(module).__name__}, not a torch.nn.Module",
            code="FACTORY_FAILED",
            hint="name a function or class that gives the model: package.module:factory",
        )
    return module.to(device).eval()


def _called(factory: Callable[..., Any], arguments: Mapping[str, Any], *, meta: bool) -> Any:
    """Call a factory; one that computes with its own weights as it makes them needs memory."""
    try:
        with Skeleton(meta=meta):
            return factory(**arguments)
    except (NotImplementedError, RuntimeError) as error:
        if not meta or "meta" not in str(error):
            raise
        with Skeleton(meta=False):
            return factory(**arguments)


def _find_factory(reference: str) -> Callable[..., Any]:
    module_name, _, attribute = reference.partition(":")
    try:
        with importing():
            found = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"cannot find {reference}: {error}",
            code="FACTORY_NOT_FOUND",
            hint="write package.module:factory; modules of the working folder can be imported too",
        ) from error
    if not callable(found):
        raise InputError(
            f"{reference} cannot be called",
            code="FACTORY_NOT_FOUND",
            hint="name a function or class that gives the model: package.module:factory",
        )
    factory: Callable[..., Any] = found
    return factory


@contextmanager
def _working_folder_importable(*, enabled: bool) -> Iterator[None]:
    folder = os.getcwd()  # noqa: PTH109  # sys.path holds strings
    added = enabled and folder not in sys.path
    if added:
        sys.path.insert(0, folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)
