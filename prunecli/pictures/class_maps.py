"""Which classes are like each other: a map of them, and the matrix of their similarities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecli.pictures.datasets import MOST, NAME, TOLD, WIDTH, hardest
from prunecli.pictures.saving import Picture
from prunecli.pictures.style import COLOURS, GRID, INK, NARROW, QUIET, new_figure, quiet_map, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from prunecli.report import DatasetAnalysis

WRITTEN = 12
"""Classes up to which every similarity is written into its cell."""

NEAR_WHITE = "#fefefe"
"""White that stays white on a dark page: it stands on dark cells."""

ROOM = 1.3
"""The width of the map over that of the places on it."""

SIZES = {False: (WIDTH, 4.1), True: (NARROW, 3.4)}
"""Inches of the map, and of a narrow one."""

LETTER = 5.0
"""Points that a letter of a name on the map is wide, about; a name is twice as high."""

AWAY = 5.0
"""Points between a class on the map and its name."""

SHOWN = {False: MOST, True: 16}
"""Classes of a matrix, and up to which a map names all; also of narrow ones."""

ON_MAP = {False: 24, True: 10}
"""Classes that are named on a map of more than that, and on a narrow one."""

SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Where a name can stand from its class, the best first."""


def class_map_picture(dataset: DatasetAnalysis, *, narrow: bool = False) -> Picture:
    """Draw the classes in a plane, similar ones near each other, the most similar ones joined.

    Of many classes those are named that are joined, and the hardest.
    """
    size = SIZES[narrow]
    figure, (axes,) = new_figure(*size, narrow=narrow)
    names = list(dataset.class_map)
    places = np.array([dataset.class_map[name] for name in names], np.float64).reshape(-1, 2)
    named = _named(dataset, narrow=narrow)
    _frame_(axes, places, size)
    strongest = max((pair[2] for pair in dataset.confused_pairs), default=1.0)
    for first, second, similarity in dataset.confused_pairs:
        ends = np.array([dataset.class_map[first], dataset.class_map[second]])
        share = similarity / strongest
        axes.plot(
            *ends.T, color=COLOURS[0], alpha=0.1 + 0.7 * share**2, linewidth=0.6 + 2.2 * share**2,
            solid_capstyle="round", zorder=1,
        )  # fmt: skip
    is_named = np.isin(names, named)
    (across, up), (there, high) = places[~is_named].T, places[is_named].T
    axes.scatter(across, up, s=9, color=QUIET, alpha=0.5, linewidth=0, zorder=2)
    axes.scatter(there, high, s=26, color=COLOURS[1], linewidth=0, zorder=3)
    lines = [
        (dataset.class_map[first], dataset.class_map[second])
        for first, second, _ in dataset.confused_pairs
    ]
    names = [name if name in set(named) else "" for name in names]
    _write_names_(axes, places, names, np.array(lines, np.float64).reshape(-1, 2, 2), size)
    title = "Map of the classes"
    if len(named) < len(places):
        title = f"Map of {len(places):,} classes, {len(named)} of them named"
    axes.set_title(title, loc="left")
    pairs = "; ".join(
        f"{first} and {second} {similarity:.2f}"
        for first, second, similarity in dataset.confused_pairs[:TOLD]
    )
    words = f"A map of {len(places)} classes. Most similar: {pairs or 'no two are similar'}."
    return Picture(figure, title, words)


def _named(dataset: DatasetAnalysis, *, narrow: bool) -> list[str]:
    names = list(dataset.class_map)
    if len(names) <= SHOWN[narrow]:
        return names
    joined = [name for pair in dataset.confused_pairs for name in pair[:2]]
    ranked = dict.fromkeys([*joined, *(entry.name for entry in hardest(dataset))])
    return list(ranked)[: ON_MAP[narrow]]


def similarity_picture(dataset: DatasetAnalysis, *, narrow: bool = False) -> Picture:
    """Draw the matrix of class similarities, ordered such that similar classes are neighbours.

    Of many classes, the hardest.
    """
    names = list(dataset.class_map)
    matrix = np.array(dataset.similarity, np.float64)
    rank = {entry.name: at for at, entry in enumerate(hardest(dataset))}
    chosen = sorted(range(len(names)), key=lambda at: rank.get(names[at], at))[: SHOWN[narrow]]
    chosen = [chosen[at] for at in _order(matrix[np.ix_(chosen, chosen)])]
    shown = matrix[np.ix_(chosen, chosen)]
    np.fill_diagonal(shown, np.nan)
    low, top = float(np.nanmin(shown)), float(np.nanmax(shown))
    low, top = (low, top) if low < top else (0.0, top or 1.0)
    many = len(chosen) > WRITTEN
    width = WIDTH if not many else max(WIDTH, 1.6 + 0.17 * len(chosen))
    width = NARROW if narrow else width
    figure, (axes,) = new_figure(width, width * (0.95 if many else 0.92), narrow=narrow)
    axes.imshow(shown, cmap=quiet_map(), vmin=low, vmax=top, interpolation="none")
    _label_cells_(axes, shown, [short(names[at], NAME) for at in chosen], low + 0.6 * (top - low))
    of = f", the {len(chosen)} hardest of {len(names):,}" if len(chosen) < len(names) else ""
    title = f"Similarity of classes{of}"
    axes.set_title(title, loc="left")
    axes.set_xlabel(f"weakest: {low:.2f}, strongest: {top:.2f}")
    return Picture(figure, title, _matrix_words(shown, [names[at] for at in chosen]))


def _label_cells_(
    axes: Axes, shown: NDArray[np.float64], names: Sequence[str], dark: float
) -> None:
    small = 8.5 if len(names) <= WRITTEN else 7.0
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=small)
    axes.set_yticks(range(len(names)), names, fontsize=small)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if len(names) > WRITTEN:
        return
    for row, column in np.argwhere(~np.isnan(shown)).tolist():
        value = shown[row, column]
        axes.text(
            column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7.0,
            color=NEAR_WHITE if value > dark else INK,
        )  # fmt: skip


def _order(matrix: NDArray[np.float64]) -> list[int]:
    """Return the classes in the order of the leaves of an average-linkage tree."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(matrix) < 3:
        return list(range(len(matrix)))
    apart = 1 - (matrix + matrix.T) / 2
    np.fill_diagonal(apart, 0.0)
    tree = linkage(squareform(apart.clip(min=0.0), checks=False), "average", optimal_ordering=True)
    return [int(at) for at in leaves_list(tree)]


def _matrix_words(shown: NDArray[np.float64], names: Sequence[str]) -> str:
    """Return the largest similarities of a matrix in words."""
    rows, columns = np.triu_indices(len(names), k=1)
    order = np.argsort(-shown[rows, columns], kind="stable")[:TOLD]
    told = "; ".join(
        f"{names[rows[at]]} and {names[columns[at]]} {shown[rows[at], columns[at]]:.2f}"
        for at in order.tolist()
    )
    return f"A matrix of {len(names)} classes. Largest similarities: {told}."


def _frame_(axes: Axes, places: NDArray[np.float64], size: tuple[float, float]) -> None:
    """Set limits that hold all places at one scale and leave room for names; hide the axes."""
    spans = np.ptp(places, axis=0) if len(places) else np.ones(2)
    span = max(float(spans[0]) / size[0], float(spans[1]) / size[1], 1e-9)
    middle = (places.max(axis=0) + places.min(axis=0)) / 2 if len(places) else np.zeros(2)
    half = np.array(size) * span * 0.5 * ROOM
    axes.set_xlim(middle[0] - half[0], middle[0] + half[0])
    axes.set_ylim(middle[1] - half[1], middle[1] + half[1])
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(GRID)


def _write_names_(
    axes: Axes,
    places: NDArray[np.float64],
    names: Sequence[str],
    lines: NDArray[np.float64],
    size: tuple[float, float],
) -> None:
    """Write each name at that side of its class where it covers least of what is there already."""
    low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
    area = 72 * np.array(size) * 0.93
    points = (places - low) / (high - low) * area
    along = np.linspace(0, 1, 40)[:, None, None]
    strokes = (lines[:, 0] + along * (lines[:, 1] - lines[:, 0]) - low) / (high - low) * area
    taken: list[tuple[float, ...]] = [(x - 3, y - 3, x + 3, y + 3) for x, y in points.tolist()]
    taken += [(x - 1, y - 1, x + 1, y + 1) for x, y in strokes.reshape(-1, 2).tolist()]
    for at in (at for at, name in enumerate(names) if name):
        x, y = points[at].tolist()
        label = short(names[at], NAME)
        width, height = LETTER * len(label), 2 * LETTER
        boxes = [_box(x, y, width, height, side) for side in SIDES]
        costs = [_covered(box, taken) + _outside(box, area.tolist()) for box in boxes]
        best = int(np.argmin(costs))
        across, up = SIDES[best]
        taken.append(boxes[best])
        axes.annotate(
            label, places[at], (AWAY * across, AWAY * up),
            textcoords="offset points", fontsize=8.5,
            ha=("center", "left", "right")[across], va=("center", "bottom", "top")[up],
        )  # fmt: skip


def _box(
    x: float, y: float, width: float, height: float, side: tuple[int, int]
) -> tuple[float, ...]:
    across, up = side
    left = x + AWAY * across - width * (1 - across) / 2
    below = y + AWAY * up - height * (1 - up) / 2
    return left, below, left + width, below + height


def _covered(box: tuple[float, ...], taken: Sequence[tuple[float, ...]]) -> float:
    others = np.array(taken)
    wide = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    high = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    return float((wide.clip(min=0) * high.clip(min=0)).sum())


def _outside(box: tuple[float, ...], area: Sequence[float]) -> float:
    over = max(0.0, -box[0]) + max(0.0, box[2] - area[0])
    over += max(0.0, -box[1]) + max(0.0, box[3] - area[1])
    return 20 * over
