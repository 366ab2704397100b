"""How hard a data set is to classify, before anything is trained on it."""

from prunecli.complexity.csg import csg, csg_by_volume, csg_repeated
from prunecli.complexity.embedding import EMBEDDINGS, embed_pixels
from prunecli.complexity.embedding import parse as parse_embedding
from prunecli.complexity.estimates import CsgResult, CsgSettings, RepeatedCsg
from prunecli.complexity.neighbours import Neighbours, nearest_neighbours
from prunecli.complexity.points import NetworkFeatures
from prunecli.complexity.reduction import SUBSET_RULES, Candidates
from prunecli.complexity.spectrum import SCORES, class_similarity, laplacian_spectrum
from prunecli.complexity.volumes import VOLUMES

__all__ = [
    "EMBEDDINGS",
    "SCORES",
    "SUBSET_RULES",
    "VOLUMES",
    "Candidates",
    "CsgResult",
    "CsgSettings",
    "Neighbours",
    "NetworkFeatures",
    "RepeatedCsg",
    "class_similarity",
    "csg",
    "csg_by_volume",
    "csg_repeated",
    "embed_pixels",
    "laplacian_spectrum",
    "nearest_neighbours",
    "parse_embedding",
]
