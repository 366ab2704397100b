"""The models of timm, each an architecture `timm/NAME` where timm is installed."""

from __future__ import annotations

from functools import cache

from prunecli.architectures.architecture import Architecture
from prunecli.architectures.arguments import TIMM
from prunecli.architectures.reference import InputSpec
from prunecli.errors import InputError

FROM_TIMM = "timm/"
"""What names of timm's models begin with here."""


@cache
def timm_architecture(name: str) -> Architecture:
    """Return a model of timm; raise `InputError` for one that it lacks, or where it is missing."""
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"{FROM_TIMM}{name} needs timm, which is not installed",
            code="MISSING_EXTRA",
            hint="pip install 'prunecli[timm]'",
        ) from error
    # Only what timm itself defines: other spellings would fetch code or weights from elsewhere.
    if not timm.is_model(name):
        near = ", ".join(FROM_TIMM + known for known in timm.list_models(f"*{name}*")[:5])
        raise InputError(
            f"timm has no model {name!r}",
            code="UNKNOWN_ARCHITECTURE",
            hint=f"did you mean {near}" if near else "timm.list_models() has all names",
        )
    config = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
    channels, height, width = config.input_size if config is not None else (3, 224, 224)
    mean, std = (config.mean, config.std) if config is not None else ((0.5,) * 3, (0.5,) * 3)
    return Architecture(
        factory="timm:create_model",
        input=InputSpec(channels, height, width, tuple(mean), tuple(std)),
        arguments={"model_name": name, "pretrained": False},
        accepts=TIMM,
    )
