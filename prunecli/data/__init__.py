"""Image data sets: found by format, split by seed, decoded once."""

from prunecli.data.formats import idx, cifar, hugging_face, pairs, csv_table, folders, npz, digits  # isort: skip - the order of recognition
from prunecli.data.examples import Change, changed
from prunecli.data.image_files import Files, Sample
from prunecli.data.images import Batch, ImageSet, MemoryImageSet, StreamedImageSet, plan_batches
from prunecli.data.load import check_classes, load_split, unlike_classes
from prunecli.data.source import (
    BUILT_IN,
    FORMATS,
    Arrays,
    DataFormat,
    DataSource,
    Packed,
    Pairs,
    RawSplit,
    identity,
    labels_of,
    names_of,
    open_either,
    open_images,
    open_source,
)
from prunecli.data.splits import available_splits, choose, evaluation_split

__all__ = [
    "BUILT_IN",
    "FORMATS",
    "Arrays",
    "Batch",
    "Change",
    "DataFormat",
    "DataSource",
    "Files",
    "ImageSet",
    "MemoryImageSet",
    "Packed",
    "Pairs",
    "RawSplit",
    "Sample",
    "StreamedImageSet",
    "available_splits",
    "changed",
    "check_classes",
    "choose",
    "cifar",
    "csv_table",
    "digits",
    "evaluation_split",
    "folders",
    "hugging_face",
    "identity",
    "idx",
    "labels_of",
    "load_split",
    "names_of",
    "npz",
    "open_either",
    "open_images",
    "open_source",
    "pairs",
    "plan_batches",
    "unlike_classes",
]
