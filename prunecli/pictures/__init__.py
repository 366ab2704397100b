"""Pictures of reports, drawn with matplotlib without a display and without pyplot's state."""

from prunecli.pictures.oracles import oracle_picture
from prunecli.pictures.relations import relation_picture
from prunecli.pictures.saving import FORMATS, Picture, check_folder, save_figure, save_pictures
from prunecli.pictures.sensitivities import sensitivity_picture
from prunecli.pictures.sweeps import sweep_picture

__all__ = [
    "FORMATS",
    "Picture",
    "check_folder",
    "oracle_picture",
    "relation_picture",
    "save_figure",
    "save_pictures",
    "sensitivity_picture",
    "sweep_picture",
]
