"""How a network's test error follows the complexity of data: least squares, and how far it holds.

The paper of the CSG fits error = a + b CSG over data sets. The other forms, which allow for the
number of classes and of images, are our own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, stdtrit

from prunecli.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats: TypeAlias = NDArray[np.float64]

CONFIDENCE = 0.95
"""How often the true error is to lie in the interval of a prediction."""


@dataclass(frozen=True, eq=False)
class Setups:
    """Data sets as a relation knows them: score, number of classes, training images per class."""

    scores: Floats
    classes: Floats
    images: Floats

    @classmethod
    def of(cls, rows: Sequence[tuple[float, float, float]]) -> Setups:
        """Return the data sets of rows of (score, classes, images per class)."""
        return cls(*np.array(rows, dtype=np.float64).reshape(-1, 3).T)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: NDArray[np.bool_]) -> Setups:
        return Setups(self.scores[rows], self.classes[rows], self.images[rows])

    @property
    def overlap(self) -> Floats:
        """The score over K - 1, the largest that it can be: 0 for apart, 1 for all the same."""
        return self.scores / (self.classes - 1)

    @property
    def chance(self) -> Floats:
        """The error of guessing among balanced classes, 1 - 1/K."""
        return 1 - 1 / self.classes


Columns: TypeAlias = Callable[[Setups], tuple[Floats, ...]]


@dataclass(frozen=True)
class Form:
    """What an error is taken to be linear in, as columns and in words.

    `of_chance` says whether it is the error as a share of that of guessing.
    """

    columns: Columns
    of_chance: bool
    predictor: str

    @property
    def predicted(self) -> str:
        """What is foretold, as a formula of the error and the number of classes."""
        return "error/(1-1/K)" if self.of_chance else "error"


FORMS: Registry[Form] = Registry("form of the expected error")

FORMS.add(
    "csg",
    Form(lambda setups: (setups.scores,), of_chance=False, predictor="CSG"),
    summary="error = a + b CSG",
    source="Branchaud-Charron, Achkar, Jodoin, CVPR 2019",
)
FORMS.add(
    "overlap",
    Form(lambda setups: (setups.overlap,), of_chance=False, predictor="CSG/(K-1)"),
    summary="error = a + b CSG/(K-1)",
)
FORMS.add(
    "overlap-of-chance",
    Form(lambda setups: (setups.overlap,), of_chance=True, predictor="CSG/(K-1)"),
    summary="error/(1-1/K) = a + b CSG/(K-1)",
)
FORMS.add(
    "overlap-and-size",
    Form(
        lambda setups: (setups.overlap, np.log10(setups.images)),
        of_chance=True,
        predictor="CSG/(K-1)",
    ),
    summary="error/(1-1/K) = a + b CSG/(K-1) + c log10(images per class)",
)


@dataclass(frozen=True, eq=False)
class Fit:
    """One form fitted by least squares to n data sets; errors are fractions.

    `r` is the correlation of what is fitted with the fit (of one predictor: Pearson's, with its
    sign), `p` the probability of as good a fit without any relation (F test; data sets that are
    variants of each other are taken for independent by it, so it is too small). `left_out` [n] is
    measured minus predicted error when the data set itself is not fitted to, `family_left_out` [n]
    when all variants of it are not.
    """

    form: str
    coefficients: tuple[float, ...]
    r: float
    p: float
    errors: Floats
    families: tuple[str, ...]
    setups: Setups
    left_out: Floats
    family_left_out: Floats

    def predict(self, setups: Setups) -> Floats:
        """Return the expected errors [n], never below zero or above one."""
        return np.clip(_predict(FORMS.get(self.form), np.array(self.coefficients), setups), 0, 1)

    def half_interval(self) -> float:
        """Return by how much a prediction may be off, on either side, in 95 of 100 data sets.

        Student's t times the root mean square of what was left out: of single data sets or of
        whole families, whichever is larger, every family weighing the same. Data that is foreign
        to all that was fitted on is what a relation is asked about.
        """
        free = max(len(self.errors) - len(self.coefficients), 1)
        spread = max(spread_of(self.left_out, self.families),
                     spread_of(self.family_left_out, self.families))  # fmt: skip
        return float(stdtrit(free, (1 + CONFIDENCE) / 2)) * spread


def fit(form: str, setups: Setups, errors: Floats, families: Sequence[str]) -> Fit:
    """Fit a form to measured errors [n] of data sets of some families."""
    design = FORMS.get(form)
    matrix, target = _matrix(design, setups), _target(design, setups, errors)
    coefficients = _solve(design, setups, errors)
    fitted = matrix @ coefficients
    r, p = _quality(target, fitted, matrix)
    return Fit(
        form=form,
        coefficients=tuple(coefficients.tolist()),
        r=r,
        p=p,
        errors=errors,
        families=tuple(families),
        setups=setups,
        left_out=_left_out(design, setups, errors, np.arange(len(errors))),
        family_left_out=_left_out(
            design, setups, errors, np.unique(families, return_inverse=True)[1]
        ),
    )


def spread_of(residuals: Floats, families: Sequence[str]) -> float:
    """Return the root mean square of residuals [n], every family weighing the same."""
    names = np.array(families)
    squares = [float((residuals[names == name] ** 2).mean()) for name in dict.fromkeys(families)]
    return float(np.sqrt(np.mean(squares)))


def _matrix(form: Form, setups: Setups) -> Floats:
    return np.stack([np.ones(len(setups)), *form.columns(setups)], axis=1)


def _target(form: Form, setups: Setups, errors: Floats) -> Floats:
    return errors / setups.chance if form.of_chance else errors


def _solve(form: Form, setups: Setups, errors: Floats) -> Floats:
    target = _target(form, setups, errors)
    found = np.linalg.lstsq(_matrix(form, setups), target, rcond=None)[0]
    return np.asarray(found, np.float64)


def _predict(form: Form, coefficients: Floats, setups: Setups) -> Floats:
    found: Floats = _matrix(form, setups) @ coefficients
    return found * setups.chance if form.of_chance else found


def _left_out(form: Form, setups: Setups, errors: Floats, groups: NDArray[np.integer]) -> Floats:
    """Return measured minus predicted errors [n], each group predicted from all others."""
    residuals = np.zeros_like(errors)
    for group in np.unique(groups).tolist():
        out = groups == group
        coefficients = _solve(form, setups[~out], errors[~out])
        predicted = np.clip(_predict(form, coefficients, setups[out]), 0, 1)
        residuals[out] = errors[out] - predicted
    return residuals


def _quality(target: Floats, fitted: Floats, matrix: Floats) -> tuple[float, float]:
    count, width = matrix.shape
    r = float(np.corrcoef(target, fitted)[0, 1])
    if width == 2 and np.corrcoef(target, matrix[:, 1])[0, 1] < 0:
        r = -r
    free = count - width
    ratio = (r**2 / (width - 1)) / max((1 - r**2) / free, 1e-300)
    return r, float(fdtrc(width - 1, free, ratio))
