"""Pictures of reports, drawn with matplotlib without a display and without pyplot's state."""

from prunecli.pictures.candidates import candidates_picture
from prunecli.pictures.class_maps import class_map_picture, similarity_picture
from prunecli.pictures.courses import cost_named, course_picture, widths_picture
from prunecli.pictures.datasets import (
    balance_picture,
    difficulty_picture,
    reduction_picture,
    spectrum_picture,
)
from prunecli.pictures.known_scores import scale_of, scale_picture, scale_text
from prunecli.pictures.layers import kept_picture, layers_picture, weights_picture
from prunecli.pictures.learned import agreement_picture, learned_picture
from prunecli.pictures.oracles import oracle_picture
from prunecli.pictures.relations import relation_picture
from prunecli.pictures.runs import run_picture
from prunecli.pictures.saving import (
    Picture,
    save_figure,
    save_pictures,
    svg_text,
)
from prunecli.pictures.sensitivities import sensitivity_picture
from prunecli.pictures.sweeps import sweep_picture
from prunecli.pictures.timings import benchmark_picture, latency_picture
from prunecli.pictures.training import removals_picture, training_picture

__all__ = [
    "Picture",
    "agreement_picture",
    "balance_picture",
    "benchmark_picture",
    "candidates_picture",
    "class_map_picture",
    "cost_named",
    "course_picture",
    "difficulty_picture",
    "kept_picture",
    "latency_picture",
    "layers_picture",
    "learned_picture",
    "oracle_picture",
    "reduction_picture",
    "relation_picture",
    "removals_picture",
    "run_picture",
    "save_figure",
    "save_pictures",
    "scale_of",
    "scale_picture",
    "scale_text",
    "sensitivity_picture",
    "similarity_picture",
    "spectrum_picture",
    "svg_text",
    "sweep_picture",
    "training_picture",
    "weights_picture",
    "widths_picture",
]
