"""Pictures of reports, drawn with matplotlib without a display and without pyplot's state."""

from prunecli.pictures.candidates import candidates_picture
from prunecli.pictures.layers import kept_picture, layers_picture, weights_picture
from prunecli.pictures.oracles import oracle_picture
from prunecli.pictures.runs import run_picture
from prunecli.pictures.saving import (
    FORMATS,
    Picture,
    check_folder,
    save_figure,
    save_pictures,
    svg_text,
)
from prunecli.pictures.sensitivities import sensitivity_picture
from prunecli.pictures.sweeps import sweep_picture
from prunecli.pictures.timings import benchmark_picture, latency_picture
from prunecli.pictures.training import removals_picture, training_picture

__all__ = [
    "FORMATS",
    "Picture",
    "benchmark_picture",
    "candidates_picture",
    "check_folder",
    "kept_picture",
    "latency_picture",
    "layers_picture",
    "oracle_picture",
    "removals_picture",
    "run_picture",
    "save_figure",
    "save_pictures",
    "sensitivity_picture",
    "svg_text",
    "sweep_picture",
    "training_picture",
    "weights_picture",
]
