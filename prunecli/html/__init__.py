"""Reports as one self-contained HTML file that works offline: light, dark, on paper, on a phone."""

from prunecli.html.analysis import analysis_page
from prunecli.html.cuts import cut_page
from prunecli.html.of_reports import page_of
from prunecli.html.page import page
from prunecli.html.parts import (
    Bar,
    Cell,
    Drawing,
    Facts,
    Folded,
    Grid,
    Numbers,
    Part,
    Section,
    Station,
    Stations,
    Thumbnails,
    Tile,
)
from prunecli.html.runs import export_page, finetune_page
from prunecli.html.sweeps import sweep_page
from prunecli.html.thumbnails import data_uri
from prunecli.html.writing import write_page

__all__ = [
    "Bar",
    "Cell",
    "Drawing",
    "Facts",
    "Folded",
    "Grid",
    "Numbers",
    "Part",
    "Section",
    "Station",
    "Stations",
    "Thumbnails",
    "Tile",
    "analysis_page",
    "cut_page",
    "data_uri",
    "export_page",
    "finetune_page",
    "page",
    "page_of",
    "sweep_page",
    "write_page",
]
