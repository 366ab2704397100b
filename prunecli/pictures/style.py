"""What all pictures have in common: size, colours that colour-blind people can tell, quiet axes."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#332288")
"""Okabe and Ito's palette without yellow and black, and two of Tol's; in the order of use."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
"""Shapes that go with the colours: no line is told by its colour alone."""

INK = "#000000"
PAPER = "#ffffff"
GRID = "#d9d9d9"
QUIET = "#6b6b6b"
"""Grey of what is there to compare with: random channels, grids, notes."""

NARROW = 3.15
"""Inches of a picture for a phone: 360 pixels less the margins of a page."""

AROUND = 0.7
"""Inches of the title over several stacked axes and of the legend below them."""

NARROW_TITLE = 40
"""Characters of a line of a title over such a picture."""


def new_figure(
    width: float, height: float, *, columns: int = 1, narrow: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a white figure of so many inches with one row of axes.

    A `narrow` one is for a phone: the axes are stacked, and `height` is that of each of them.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    title = 9.0 if narrow else 10.0
    look = {"font.size": 9.0, "axes.titlesize": title, "legend.fontsize": 8.5}
    with rc_context({**look, "font.family": "DejaVu Sans"}):
        size = (NARROW, AROUND * (columns > 1) + columns * height) if narrow else (width, height)
        figure = Figure(figsize=size, layout="constrained", facecolor=PAPER)
        FigureCanvasAgg(figure)
        shape = (columns, 1) if narrow else (1, columns)
        axes = list(figure.subplots(*shape, squeeze=False).flat)
    for each in axes:
        quieten_(each)
    return figure, axes


def quieten_(axes: Axes) -> None:
    """Take away what says nothing: two of the four borders, and the weight of the grid."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, length=3)


def entitle_(figure: Figure, title: str, *, narrow: bool = False) -> None:
    """Write a title over all axes of a figure, in several lines where it is `narrow`."""
    width = NARROW_TITLE if narrow else LONGEST_TITLE
    lines = wrap(printable(title), width, max_lines=3, placeholder=" ..") if narrow else [title]
    text = "\n".join(short(line, width) for line in lines)
    figure.suptitle(text, fontsize=9.5 if narrow else 11, x=0.01, ha="left")


def explain_(
    figure: Figure, looks: tuple[list[Artist], list[str]], *, most: int = 5, narrow: bool = False
) -> None:
    """Put a legend of handles and labels below a figure, with so many of them in a row."""
    handles, labels = looks
    if narrow:
        most = 2 if max(map(len, labels), default=0) <= NARROW_NAME else 1
    columns = max(1, min(len(labels), most))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def look_of(names: Iterable[str], name: str) -> tuple[str, str]:
    """Return the colour and the marker of one of `names`; both start anew where they run out."""
    at = list(dict.fromkeys(names)).index(name)
    return COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]


LONGEST = 32
"""Characters of a name beside a picture."""

LONGEST_TITLE = 110
"""Characters of a title over a wide picture."""


NARROW_NAME = 20
"""Characters of a name in a picture for a phone."""


def beside(name: str, *, narrow: bool) -> str:
    """Cut a name such that there is room for it beside the axes."""
    return short(name, NARROW_NAME if narrow else LONGEST)


def short(name: str, longest: int = LONGEST) -> str:
    """Cut a long name in the middle, and make it text that matplotlib takes for no formula.

    >>> short("features.denseblock3.denselayer24.conv1")
    'features.dense..nselayer24.conv1'
    """
    name = printable(name)
    if len(name) > longest:
        half = longest // 2
        name = f"{name[: half - 2]}..{name[-half:]}"
    return name.replace("$", r"\$")


def printable(text: str) -> str:
    r"""Write what cannot be shown, or would turn the text around it, as Python writes it.

    Names of files are bytes: they may hold control characters, and surrogates for what is no UTF-8.

    >>> print(printable("a" + chr(10) + "b" + chr(0xDCFF)))
    a\nb\udcff
    """
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def quiet_map() -> Colormap:
    """Return colours from nothing at all to the first of `COLOURS`: they suit any ground."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    ends = [to_rgba(COLOURS[0], alpha) for alpha in (0.0, 1.0)]
    return LinearSegmentedColormap.from_list("quiet", ends)
