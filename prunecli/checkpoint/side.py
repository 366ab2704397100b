"""What people keep beside a model in the same state dict, by the words that they call it."""

from __future__ import annotations

import re

_SIDE = re.compile(
    "acc|accuracy|auc|aux|auxiliary|average|averaged|bank|center|centers|centre|centres|centroids|"
    "confusion|contrastive|crit|criterion|discriminator|ema|f1|loss|losses|lpips|memory|meter|"
    "metric|metrics|momentum|perceptual|precision|predictor|proj|projection|projector|prototypes|"
    "queue|recall|swa|target|teacher"
)
_HEAD = re.compile(
    "classification|classifier|cls|fc|final|head|heads|last|linear|logits|mlp|out|output|top"
)
_WORDS = re.compile(r"[a-z]+[0-9]*|[0-9]+")


def is_side(path: str) -> bool:
    """Tell whether a name is one of what serves training: a loss, a metric, a teacher.

    >>> is_side("criterion"), is_side("model.projection_head"), is_side("classifier")
    (True, True, False)
    """
    return any(map(_SIDE.fullmatch, _words(path)))


def looks_like_head(path: str, place: str) -> bool:
    """Tell whether a name is one of what people call a classifier, or that of its `place`."""
    last = path.rpartition(".")[2]
    return last == place or any(map(_HEAD.fullmatch, _words(last)))


def _words(path: str) -> list[str]:
    plain = re.sub(r"([a-z])([A-Z])", r"\1_\2", path).lower()
    return _WORDS.findall(plain.replace(".", "_"))
