"""The image models of the package transformers, as `transformers/CLASS` with their configuration.

A configuration comes from a file. Of it count the settings that the class itself knows, as far as
they are plain numbers, yes or no, and words of an activation or a kind of layer. What would fetch
weights or code (another model inside, a name of the hub, `auto_map`) is refused.
"""

from __future__ import annotations

import logging
import math
import os
import re
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from prunecli.architectures.architecture import Architecture
from prunecli.architectures.arguments import Argument
from prunecli.architectures.reference import InputSpec
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

FROM_TRANSFORMERS = "transformers/"
"""What names of the package's models begin with here."""

LABELS = "num_labels"
_NOT_OF_THE_NETWORK = frozenset(
    {
        *("architectures", "dtype", "torch_dtype", "transformers_version", "id2label", "label2id"),
        *(
            "model_type",
            "problem_type",
            "return_dict",
            "output_hidden_states",
            "is_encoder_decoder",
        ),
        *("output_attentions", "chunk_size_feed_forward", "initializer_range"),
    }
)
"""Settings that do not change the values of the network, or that are kept apart."""

_WORD = re.compile(r"[A-Za-z0-9_]{0,32}")
_LARGEST = 16_384
_MOST_LAYERS = 512
_MOST_VALUES = 512
_MOST_LABELS = 1_000_000


def transformers_architecture(name: str) -> Architecture:
    """Return the architecture of a class of transformers that takes images.

    Raises `InputError` where the package is not installed or has no such class.
    """
    kind = image_class(name)
    return Architecture(
        factory=f"{__name__}:build",
        input=InputSpec(3, 224, 224, (0.0,) * 3, (1.0,) * 3),
        arguments={"name": name},
        variants={},
        accepts={
            "config": Argument(
                lambda value: _is_config(kind, value),
                "settings of that class, plain numbers and words in bounds",
            )
        },
    )


def build(name: str, config: Mapping[str, Any] | None = None) -> nn.Module:
    """Return the model of a class with a configuration; nothing is fetched.

    Raises `ValueError` for a configuration that is not accepted.
    """
    kind = image_class(name)
    with _quiet():
        made: nn.Module = kind(_config(kind, config or {}))
    return made


def plain_config(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a configuration that decide on the network, as JSON data.

    Raises `ValueError` for one that is no plain number or word, or out of bounds.
    """
    known = _settings(kind)
    found = {key: _plain(key, value) for key, value in given.items() if key in known}
    labels = given.get(LABELS, len(given["id2label"]) if given.get("id2label") else None)
    if labels is not None:
        if type(labels) is not int or not 0 <= labels <= _MOST_LABELS:
            raise ValueError(f"it has {str(labels)[:20]} classes")
        found[LABELS] = labels
    return found


def own_tensors(
    name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors of a file under the names that the installed version has for them.

    Raises `ValueError` for weights that are not those of the class with its configuration.
    """
    import torch  # only here: names and settings are told without it

    kind = image_class(name)
    settings = _config(kind, config)
    with _quiet():
        with torch.device("meta"):
            wanted = sum(each.numel() for each in kind(settings).state_dict().values())
        held = sum(tensor.numel() for tensor in tensors.values())
        if wanted > 2 * held:
            raise ValueError(
                f"its configuration asks for {wanted:,} numbers, the file has {held:,}"
            )
        model, report = kind.from_pretrained(
            None, config=settings, state_dict=dict(tensors), output_loading_info=True
        )
    wrong = [*report["missing_keys"], *report["mismatched_keys"], *report["unexpected_keys"]]
    if wrong:
        shown = ", ".join(sorted(map(str, wrong))[:3])
        raise ValueError(f"{len(wrong)} tensors are missing, of other shapes or too many: {shown}")
    return {key: value.detach() for key, value in model.state_dict().items()}


def is_installed() -> bool:
    """Tell whether transformers can be imported."""
    try:
        _package()
    except ImportError:
        return False
    return True


def image_class(name: str) -> Any:
    """Return a class of transformers itself that takes images; raises `InputError`."""
    try:
        package = _package()
    except ImportError as error:
        raise InputError(
            f"{FROM_TRANSFORMERS}{name} needs transformers, which is not installed",
            code="MISSING_EXTRA",
            hint="pip install transformers",
        ) from error
    kind: Any = getattr(package, name, None) if re.fullmatch(r"[A-Z][A-Za-z0-9]+", name) else None
    fits = (
        isinstance(kind, type)
        and issubclass(kind, package.PreTrainedModel)
        and kind.__module__.startswith("transformers.models.")
        and getattr(kind, "main_input_name", None) == "pixel_values"
        and getattr(kind, "config_class", None) is not None
        and not name.startswith("Timm")  # a name of the hub within a configuration
    )
    if not fits or not _settings(kind) or any("backbone" in key for key in _settings(kind)):
        raise InputError(
            f"transformers has no model {name[:60]!r} of a kind that can be read",
            code="UNKNOWN_ARCHITECTURE",
            hint="classes that take images alone can, such as ResNetForImageClassification; "
            "or name your own code: --arch mypackage.nets:make_net",
        )
    return kind


@cache
def _settings(kind: Any) -> frozenset[str]:
    """Return the names of the settings that count; none where the class has no usual ones."""
    try:
        known = kind.config_class().to_dict()
    except Exception:  # noqa: BLE001 - a configuration that is made of others, and raises anything
        return frozenset()
    return frozenset(
        key for key in known if not key.startswith("_") and key not in _NOT_OF_THE_NETWORK
    )


def _config(kind: Any, given: Mapping[str, Any]) -> Any:
    settings = plain_config(kind, given)
    return kind.config_class(**settings)


def _is_config(kind: Any, value: Any) -> bool:
    try:
        return isinstance(value, dict) and plain_config(kind, value) == value
    except (ValueError, TypeError):
        return False


def _plain(key: str, value: Any, depth: int = 2) -> Any:
    if isinstance(value, list | tuple) and depth and len(value) <= _MOST_VALUES:
        return [_plain(key, each, depth - 1) for each in value]
    most = _MOST_LAYERS if "depth" in key or "layers" in key or "blocks" in key else _LARGEST
    if value is None or isinstance(value, bool):
        return value
    if type(value) in {int, float} and math.isfinite(value) and abs(value) <= most:
        return value
    if isinstance(value, str) and _WORD.fullmatch(value):
        return value
    raise ValueError(f"its setting {key[:60]!r} is no plain number or word in bounds")


def _package() -> Any:
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = before or "1"
    try:
        import transformers
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
    return transformers


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the package from drawing bars and reports meanwhile."""
    messages = _package().utils.logging
    level, bars = messages.get_verbosity(), messages.is_progress_bar_enabled()
    messages.set_verbosity(logging.CRITICAL)
    messages.disable_progress_bar()
    try:
        yield
    finally:
        messages.set_verbosity(level)
        if bars:
            messages.enable_progress_bar()
