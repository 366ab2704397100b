"""Pictures of reports, drawn with matplotlib without a display and without pyplot's state."""

from prunecli.pictures.class_maps import class_map_picture, similarity_picture
from prunecli.pictures.datasets import (
    balance_picture,
    difficulty_picture,
    reduction_picture,
    spectrum_picture,
)
from prunecli.pictures.learned import agreement_picture, learned_picture
from prunecli.pictures.oracles import oracle_picture
from prunecli.pictures.relations import relation_picture
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

__all__ = [
    "FORMATS",
    "Picture",
    "agreement_picture",
    "balance_picture",
    "check_folder",
    "class_map_picture",
    "difficulty_picture",
    "learned_picture",
    "oracle_picture",
    "reduction_picture",
    "relation_picture",
    "save_figure",
    "save_pictures",
    "sensitivity_picture",
    "similarity_picture",
    "spectrum_picture",
    "svg_text",
    "sweep_picture",
]
