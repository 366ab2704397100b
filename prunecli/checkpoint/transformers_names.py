"""Weights of transformers under the names of torchvision, for models that are the same network.

This needs no transformers. A configuration is looked at closely: what torchvision does not do the
same way is not mapped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

_RENAMED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "ResNetForImageClassification": (
        (r"resnet\.embedder\.embedder\.convolution", "conv1"),
        (r"resnet\.embedder\.embedder\.normalization", "bn1"),
        (r"resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)", r"layer<\1+1>.\2"),
        (r"shortcut\.convolution", "downsample.0"),
        (r"shortcut\.normalization", "downsample.1"),
        (r"layer\.(\d+)\.convolution", r"conv<\1+1>"),
        (r"layer\.(\d+)\.normalization", r"bn<\1+1>"),
        (r"^classifier\.1", "fc"),
    ),
    "ConvNextForImageClassification": (
        (r"convnext\.embeddings\.patch_embeddings", "features.0.0"),
        (r"convnext\.embeddings\.layernorm", "features.0.1"),
        (r"^classifier", "classifier.2"),
        (r"convnext\.layernorm", "classifier.0"),
        (r"convnext\.encoder\.stages\.(\d+)\.downsampling_layer", r"features.<\1*2>"),
        (r"convnext\.encoder\.stages\.(\d+)\.layers", r"features.<\1*2+1>"),
        (r"layer_scale_parameter", "layer_scale"),
        (r"dwconv", "block.0"),
        (r"layernorm", "block.2"),
        (r"pwconv1", "block.3"),
        (r"pwconv2", "block.5"),
    ),
    "ViTForImageClassification": (
        (r"vit\.embeddings\.cls_token", "class_token"),
        (r"vit\.embeddings\.position_embeddings", "encoder.pos_embedding"),
        (r"vit\.embeddings\.patch_embeddings\.projection", "conv_proj"),
        (r"vit\.encoder\.layer\.(\d+)", r"encoder.layers.encoder_layer_\1"),
        (r"attention\.attention\.(query|key|value)\.", r"self_attention.in_proj_\1:"),
        (r"attention\.output\.dense", "self_attention.out_proj"),
        (r"intermediate\.dense", "mlp.0"),
        (r"output\.dense", "mlp.3"),
        (r"layernorm_before", "ln_1"),
        (r"layernorm_after", "ln_2"),
        (r"vit\.layernorm", "encoder.ln"),
        (r"^classifier", "heads.head"),
    ),
    "SwinForImageClassification": (
        (r"swin\.embeddings\.patch_embeddings\.projection", "features.0.0"),
        (r"swin\.embeddings\.norm", "features.0.2"),
        (r"swin\.encoder\.layers\.(\d+)\.blocks", r"features.<\1*2+1>"),
        (r"swin\.encoder\.layers\.(\d+)\.downsample", r"features.<\1*2+2>"),
        (r"attention\.self\.(query|key|value)\.", r"attn.qkv.\1:"),
        (r"attention\.self", "attn"),
        (r"attention\.output\.dense", "attn.proj"),
        (r"intermediate\.dense", "mlp.0"),
        (r"output\.dense", "mlp.3"),
        (r"layernorm_before", "norm1"),
        (r"layernorm_after", "norm2"),
        (r"swin\.layernorm", "norm"),
        (r"^classifier", "head"),
    ),
}
"""How a class names its parts, and torchvision: tried one after the other on each name.

`<1+1>` is worked out; `query:weight` is the first third of what torchvision holds in one.
"""

_SUM = re.compile(r"<(\d+)(?:\*(\d+))?(?:\+(\d+))?>")
_THIRDS = ("query", "key", "value")


_RESNETS = {
    ("basic", (2, 2, 2, 2)): "resnet18", ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50", ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}  # fmt: skip
_CONVNEXTS = {
    (96, (3, 3, 9, 3)): "convnext_tiny", (96, (3, 3, 27, 3)): "convnext_small",
    (128, (3, 3, 27, 3)): "convnext_base", (192, (3, 3, 27, 3)): "convnext_large",
}  # fmt: skip
_VITS = {
    (768, 12, 12, 3072, 16): "vit_b_16", (768, 12, 12, 3072, 32): "vit_b_32",
    (1024, 24, 16, 4096, 16): "vit_l_16", (1024, 24, 16, 4096, 32): "vit_l_32",
    (1280, 32, 16, 5120, 14): "vit_h_14",
}  # fmt: skip
_SWINS = {
    (96, (2, 2, 6, 2), (3, 6, 12, 24)): "swin_t", (96, (2, 2, 18, 2), (3, 6, 12, 24)): "swin_s",
    (128, (2, 2, 18, 2), (4, 8, 16, 32)): "swin_b",
}  # fmt: skip


def _resnet(config: Mapping[str, Any]) -> str | None:
    basic = config.get("layer_type", "bottleneck") == "basic"
    widths = [64, 128, 256, 512] if basic else [256, 512, 1024, 2048]
    usual = {
        "embedding_size": 64, "hidden_sizes": widths, "hidden_act": "relu",
        "downsample_in_first_stage": False, "downsample_in_bottleneck": False,
    }  # fmt: skip
    depths = tuple(config.get("depths", (3, 4, 6, 3)))
    kind = "basic" if basic else "bottleneck"
    return _RESNETS.get((kind, depths)) if _is(config, usual) else None


def _convnext(config: Mapping[str, Any]) -> str | None:
    first, *others = config.get("hidden_sizes", [96, 192, 384, 768])
    usual = {"patch_size": 4, "num_stages": 4, "hidden_act": "gelu"}
    doubled = others == [first * 2, first * 4, first * 8]
    depths = tuple(config.get("depths", (3, 3, 9, 3)))
    return _CONVNEXTS.get((first, depths)) if doubled and _is(config, usual) else None


def _vit(config: Mapping[str, Any]) -> str | None:
    defaults = {
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "patch_size": 16,
    }  # fmt: skip
    sizes = tuple(config.get(key, value) for key, value in defaults.items())
    return _VITS.get(sizes) if _is(config, {"hidden_act": "gelu", "qkv_bias": True}) else None


def _swin(config: Mapping[str, Any]) -> str | None:
    usual = {
        "patch_size": 4, "window_size": 7, "mlp_ratio": 4.0, "qkv_bias": True, "hidden_act": "gelu",
        "use_absolute_embeddings": False, "layer_norm_eps": 1e-05,
    }  # fmt: skip
    sizes = (
        config.get("embed_dim", 96),
        tuple(config.get("depths", (2, 2, 6, 2))),
        tuple(config.get("num_heads", (3, 6, 12, 24))),
    )
    return _SWINS.get(sizes) if _is(config, usual) else None


_FOUND: Mapping[str, Callable[[Mapping[str, Any]], str | None]] = {
    "ResNetForImageClassification": _resnet,
    "ConvNextForImageClassification": _convnext,
    "ViTForImageClassification": _vit,
    "SwinForImageClassification": _swin,
}


def _is(config: Mapping[str, Any], usual: Mapping[str, Any]) -> bool:
    return all(config.get(key, value) == value for key, value in usual.items()) and (
        config.get("num_channels", 3) == 3
    )


def torchvision_name(kind: str, config: Mapping[str, Any]) -> str | None:
    """Return the model of torchvision that is the same network; None where there is none."""
    find = _FOUND.get(kind)
    return find(config) if find is not None else None


def norm_notes(kind: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what to say where layer norms guard against zero with another number."""
    theirs = config.get("layer_norm_eps", 1e-12)
    if kind not in _WITH_EPSILON or theirs == _EPSILON:
        return ()
    said = f"layer norms add {_EPSILON:g} to a variance here and {theirs:g} in transformers"
    return (f"{said}: outputs differ in the sixth digit",)


_EPSILON = 1e-6
_WITH_EPSILON = frozenset({"ConvNextForImageClassification", "ViTForImageClassification"})


def torchvision_tensors(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a class under the names that torchvision has for them.

    Raises `ValueError` for a part of what torchvision holds in one that is missing.
    """
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        renamed = _renamed(kind, name)
        stem, colon, leaf = renamed.partition(":")
        if colon:
            whole, _, third = stem.rpartition("_" if "in_proj" in stem else ".")
            joint = "_" if "in_proj" in stem else "."
            parts.setdefault(f"{whole}{joint}{leaf}", {})[third] = tensor
        elif renamed.endswith(".layer_scale"):
            found[renamed] = tensor.reshape(-1, 1, 1)
        elif renamed.endswith(".relative_position_index"):
            found[renamed] = tensor.reshape(-1)
        else:
            found[renamed] = tensor
    for name, thirds in parts.items():
        if thirds.keys() != set(_THIRDS):
            raise ValueError(f"a part of {name} is missing")
        found[name] = torch.cat([thirds[third] for third in _THIRDS])
    for name in [name for name in found if name.endswith(_TABLE)]:
        index = f"{name.removesuffix(_TABLE)}.relative_position_index"
        found.setdefault(index, _relative_positions(round(len(found[name]) ** 0.5)))
    return found


_TABLE = ".relative_position_bias_table"


def _relative_positions(steps: int) -> Tensor:
    """Return which row of its table belongs to each pair of places of a square window, flat."""
    side = (steps + 1) // 2
    row, column = torch.arange(side * side) // side, torch.arange(side * side) % side
    down = row[:, None] - row[None, :] + side - 1
    right = column[:, None] - column[None, :] + side - 1
    return (down * steps + right).reshape(-1)


def _renamed(kind: str, name: str) -> str:
    for pattern, replacement in _RENAMED[kind]:
        name = re.sub(pattern, replacement, name)
    return _SUM.sub(lambda m: str(int(m[1]) * int(m[2] or 1) + int(m[3] or 0)), name)
