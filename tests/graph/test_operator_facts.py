"""Every operator that channels are followed through is in every table, or is left out for a reason.

Whoever adds a rule for an operator puts its name into a family (`prunecli/graph/operators.py`) or
into a group below. The first test here that fails then names the tables to think about: each wants
an entry, or the operator among those that it leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from prunecli.cost.flops import COUNTS_ACTIVATIONS, FLOP_RULES, NOT_COUNTED_BUT_CHEAP
from prunecli.cost.latency.operators import ONNX_KINDS
from prunecli.cutting.temperature import FOLLOWED, MAKERS
from prunecli.graph import operators as families
from prunecli.graph.coupling.roles import PRODUCERS
from prunecli.graph.emitting.rewrites import REWRITES
from prunecli.graph.operators import (
    ATTENTION,
    AVERAGE_POOLS,
    CHANNEL_NORMS,
    CHANNEL_SHUFFLES,
    CONCATENATIONS,
    CONTRACTIONS,
    CONVOLUTIONS,
    DEFORMABLE_CONVOLUTIONS,
    EMBEDDINGS,
    EXPANSIONS,
    FAKE_QUANTIZERS,
    FLIPS,
    GROUP_NORMS,
    IDENTITIES,
    INDEXINGS,
    LAYER_NORMS,
    LAYERS,
    LINEAR,
    MAX_POOLS,
    MOVES,
    OTHER_POOLS,
    PADS,
    PERMUTATIONS,
    PLANE_CONVOLUTIONS,
    REPETITIONS,
    RESIZERS,
    SIZED_VIEWS,
    STATISTICS,
    TRANSPOSED_CONVOLUTIONS,
    UNBINDINGS,
    UNTAGGED_POINTWISE,
    VIEWS,
)
from prunecli.graph.rules import RULES
from prunecli.least_squares.equations import ROWS
from prunecli.proof.masked_norms import MASKED_NORMS
from prunecli.repair.steps import RUN
from prunecli.signals.curvature import RULES as CURVATURE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# --- operators that one rule alone knows ---------------------------------------------------------

LIKE_OTHERS = frozenset({"expand_as", "view_as", "reshape_as"})  # sizes of another tensor
SHUFFLED_PIXELS = frozenset({"pixel_shuffle", "pixel_unshuffle"})
WINDOWED = frozenset({"unfold", "im2col"})
PICKED = frozenset({"gather", "take_along_dim"})
COMPLEX_VIEWS = frozenset({"view_as_complex", "view_as_real"})
ITEMS = frozenset({"getitem"})
MOVED_WITH_COPIES = frozenset({"index_select", "roll", "repeat_interleave", "stack"})
JOINED = frozenset({"meshgrid", "broadcast_tensors", "col2im"})
NEIGHBOUR_PADS = frozenset(
    f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in "123"
)
WRITTEN = frozenset(
    {
        "scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy", "index_fill",
        "index_put", "_unsafe_index_put",
    }
)  # fmt: skip
LOST = frozenset(
    {
        "take", "masked_select", "nonzero", "argwhere", "unique", "bincount", "histc",
        "searchsorted", "affine_grid_generator", "bilinear", "cdist", "cosine_similarity",
        "linalg_cross", "one_hot", "nms",
    }
)  # fmt: skip
FROM_BOXES = frozenset(
    {
        "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "grid_sampler", "grid_sampler_2d",
        "grid_sampler_3d",
    }
)  # fmt: skip
DROPOUTS = frozenset({"dropout", "feature_dropout"})
CHECKS = frozenset({"_assert_tensor_metadata"})
POINTWISE = UNTAGGED_POINTWISE | FAKE_QUANTIZERS | {
    "alpha_dropout", "bernoulli", "complex", "copy", "empty_like", "feature_alpha_dropout", "fill",
    "full_like", "hardswish", "imag", "log_sigmoid", "ones_like", "polar", "prelu", "rand_like",
    "randint_like", "randn_like", "real", "relu6", "resolve_conj", "resolve_neg", "rrelu", "rsub",
    "square", "where", "zero", "zeros_like", "_conj",
}  # fmt: skip
COMPETING = frozenset(
    {
        "softmax", "log_softmax", "_softmax", "softmin", "glu", "argsort", "cummax", "cummin",
        "cumprod", "cumsum", "diff", "logcumsumexp", "sort", "topk", "tril", "triu",
    }
)  # fmt: skip
SUMS = frozenset({"sum", "amax", "max"})
REDUCED = frozenset(
    {
        "amin", "all", "any", "aminmax", "argmax", "argmin", "count_nonzero", "kthvalue",
        "logsumexp", "median", "mode", "nansum", "prod", "min",
    }
)  # fmt: skip
FREQUENCIES = frozenset(
    {f"fft_{kind}fft{n}" for n in ("", "2", "n") for kind in ("", "i", "r", "ir")}
    | {f"fft_{kind}hfft{n}" for n in ("", "2", "n") for kind in ("", "i")}
    | {"fft_fftshift", "fft_ifftshift"}
)
RECURRENT = frozenset(
    {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell"}
)
EMBEDDING_BAGS = frozenset({"embedding_bag", "_embedding_bag"})

# --- what several tables have in common ----------------------------------------------------------

MOVING = (
    MOVES | ITEMS | LIKE_OTHERS | EXPANSIONS | REPETITIONS | FLIPS | PICKED | INDEXINGS
    | CHANNEL_SHUFFLES | SHUFFLED_PIXELS | WINDOWED | COMPLEX_VIEWS | MOVED_WITH_COPIES
    | CONCATENATIONS | JOINED | PADS | NEIGHBOUR_PADS | CHECKS
)  # fmt: skip
SUMMARISED = STATISTICS | SUMS | REDUCED | COMPETING | FREQUENCIES
SPATIAL = AVERAGE_POOLS | MAX_POOLS | OTHER_POOLS | RESIZERS | FROM_BOXES
NORMS = CHANNEL_NORMS | LAYER_NORMS | GROUP_NORMS
WHOLE = WRITTEN | LOST | RECURRENT
WEIGHTLESS = (
    MOVING | SUMMARISED | SPATIAL | NORMS | POINTWISE | DROPOUTS | WRITTEN | LOST | ATTENTION
)  # fmt: skip
NO_LAYER = WEIGHTLESS | RECURRENT | EMBEDDING_BAGS


@dataclass(frozen=True)
class Table:
    """A table by operator: where it is, what it holds, and what it leaves out for which reason."""

    where: str
    entries: Collection[str]
    none: Mapping[str, frozenset[str]]


TABLES = (
    Table(
        "REWRITES in graph/emitting/rewrites.py: sizes among the arguments",
        REWRITES,
        {
            "no argument repeats how many channels there are": (
                LINEAR | CONTRACTIONS | EMBEDDINGS | EMBEDDING_BAGS | CHANNEL_NORMS | SUMMARISED
                | POINTWISE | DROPOUTS | SPATIAL | IDENTITIES | (VIEWS - SIZED_VIEWS)
                | PERMUTATIONS | UNBINDINGS | ITEMS | LIKE_OTHERS | FLIPS | PICKED | SHUFFLED_PIXELS
                | WINDOWED | COMPLEX_VIEWS | CONCATENATIONS | JOINED | NEIGHBOUR_PADS | CHECKS
                | frozenset({"stack"})
            ),
            "its channels stay whole": WHOLE - {"index_add"},
        },
    ),
    Table(
        "PRODUCERS in graph/coupling/roles.py: weights that make channels and that read them",
        PRODUCERS.keys() | CONTRACTIONS,
        {
            "it has no weight that mixes channels": WEIGHTLESS,
            "its gates share one matrix, which stays whole": RECURRENT,
            "it has several outputs; its channels are scored where they are read": EMBEDDING_BAGS,
        },
    ),
    Table(
        "FLOP_RULES in cost/flops.py",
        FLOP_RULES.names(),
        {
            "it moves data without arithmetic": NOT_COUNTED_BUT_CHEAP & frozenset(RULES.names()),
            "reports list it as not counted, as fvcore does": (
                POINTWISE | SUMMARISED | RECURRENT | EMBEDDINGS | EMBEDDING_BAGS | WRITTEN | LOST
                | MAX_POOLS | OTHER_POOLS | FROM_BOXES | LIKE_OTHERS | REPETITIONS | FLIPS
                | PICKED | INDEXINGS | CHANNEL_SHUFFLES | SHUFFLED_PIXELS | WINDOWED | COMPLEX_VIEWS
                | JOINED | NEIGHBOUR_PADS | frozenset({"feature_dropout"})
                | (MOVED_WITH_COPIES - {"stack"}) | (AVERAGE_POOLS - {"adaptive_avg_pool2d"})
                | (RESIZERS - {"upsample_nearest2d", "upsample_bilinear2d"})
            ),
        },
    ),
    Table(
        "COUNTS_ACTIVATIONS in cost/flops.py",
        COUNTS_ACTIVATIONS,
        {
            "fvcore counts the outputs of layers and products alone": (
                NO_LAYER | EMBEDDINGS
            )
        },
    ),
    Table(
        "FOLLOWED and MAKERS in cutting/temperature.py: how queries of attention are made",
        FOLLOWED | MAKERS.keys() | ATTENTION,
        {
            "no weight behind it could restore the temperature; the proof tells": (
                TRANSPOSED_CONVOLUTIONS | DEFORMABLE_CONVOLUTIONS | CONTRACTIONS | EMBEDDINGS
                | EMBEDDING_BAGS | RECURRENT | CHANNEL_NORMS | GROUP_NORMS | SPATIAL | SUMMARISED
                | WRITTEN | LOST
            ),
            "it does more than move what one tensor holds": (
                POINTWISE | DROPOUTS | CHECKS | LIKE_OTHERS | EXPANSIONS | REPETITIONS | FLIPS
                | PICKED | INDEXINGS | CHANNEL_SHUFFLES | SHUFFLED_PIXELS | WINDOWED | COMPLEX_VIEWS
                | MOVED_WITH_COPIES | CONCATENATIONS | JOINED | PADS | NEIGHBOUR_PADS
            ),
        },
    ),
    Table(
        "LAYERS in graph/operators.py: readers of dead channels that can take over a constant",
        LAYERS,
        {
            "no weight of it turns a constant into a constant": NO_LAYER | EMBEDDINGS,
            "either factor may depend on the image": CONTRACTIONS,
            "offsets that depend on the image": DEFORMABLE_CONVOLUTIONS,
        },
    ),
    Table(
        "RUN in repair/steps.py: layers that a repair computes anew",
        RUN,
        {
            "it has no weight that can be fitted": NO_LAYER | EMBEDDINGS,
            "its weight is no parameter alone": CONTRACTIONS,
            "its rows are not laid out (`ROWS`)": (
                (CONVOLUTIONS - PLANE_CONVOLUTIONS) | TRANSPOSED_CONVOLUTIONS
                | DEFORMABLE_CONVOLUTIONS
            ),
        },
    ),
    Table(
        "ROWS in least_squares/equations.py: layers as rows of a matrix product",
        ROWS,
        {
            "it has no weight that can be fitted": NO_LAYER | EMBEDDINGS,
            "its weight is no parameter alone": CONTRACTIONS,
            "windows are laid out over two dimensions at most": (
                CONVOLUTIONS - PLANE_CONVOLUTIONS
            ),
            "its outputs are sums over several positions": TRANSPOSED_CONVOLUTIONS,
            "its windows differ from image to image": DEFORMABLE_CONVOLUTIONS,
        },
    ),
    Table(
        "RULES in signals/curvature.py: how curvatures go back",
        CURVATURE,
        {
            "pointwise, which is looked up with torch, or estimated": POINTWISE,
            "estimated: an input has a say in several outputs": (
                NORMS | ATTENTION | COMPETING | FREQUENCIES | RECURRENT | DEFORMABLE_CONVOLUTIONS
                | EMBEDDING_BAGS | FROM_BOXES | REDUCED | (STATISTICS - {"mean"})
                | (RESIZERS - {"upsample_nearest2d"}) | WRITTEN | LOST
            ),
            "estimated, which is exact for it but for rounding": (
                OTHER_POOLS | NEIGHBOUR_PADS | JOINED | COMPLEX_VIEWS | ITEMS
                | frozenset({"view_as", "reshape_as", "take_along_dim"})
            ),
            "nothing goes back through it": CHECKS,
        },
    ),
    Table(
        "ONNX_KINDS in cost/latency/operators.py: operators that are timed alone",
        ONNX_KINDS,
        {
            "its time is in the rest of the table, which follows the activations": (
                NO_LAYER | EMBEDDINGS | CONTRACTIONS
            ),
            "its time depends on its offsets, so it counts with the rest": DEFORMABLE_CONVOLUTIONS,
        },
    ),
    Table(
        "MASKED_NORMS in proof/masked_norms.py: norms over what is left of the channels",
        MASKED_NORMS.keys() | STATISTICS,
        {
            "its statistics are those of every channel alone": CHANNEL_NORMS,
            "no statistic of it runs over channels that are cut": (
                (WEIGHTLESS - NORMS - STATISTICS) | LAYERS | DEFORMABLE_CONVOLUTIONS | CONTRACTIONS
                | EMBEDDINGS | EMBEDDING_BAGS | RECURRENT
            ),
        },
    ),
)  # fmt: skip


def test_every_operator_with_a_rule_is_in_every_table_or_left_out_for_a_reason():
    missing = {
        operator: wanting
        for operator in RULES.names()
        if (wanting := [table.where for table in TABLES if operator not in _known(table)])
    }
    assert not missing, "\n".join(
        f"{operator} needs an entry, or a reason for none, in:\n  " + "\n  ".join(wanting)
        for operator, wanting in missing.items()
    )


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.where.split(":")[0])
def test_a_table_does_not_leave_out_what_it_holds(table: Table):
    assert not set(table.entries) & set().union(*table.none.values())


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.where.split(":")[0])
def test_a_table_gives_one_reason_for_what_it_leaves_out(table: Table):
    reasons = [operator for left_out in table.none.values() for operator in left_out]
    assert sorted(reasons) == sorted(set(reasons))


def test_no_table_leaves_out_an_operator_that_has_no_rule():
    # A name that is spelled wrong, or whose rule is gone.
    for table in TABLES:
        assert set().union(*table.none.values()) <= set(RULES.names())


def test_every_member_of_a_family_has_a_rule():
    named = {name: value for name, value in vars(families).items() if isinstance(value, frozenset)}
    assert len(named) > 30
    assert {
        name: unknown for name, value in named.items() if (unknown := value - set(RULES.names()))
    } == {}


def test_an_operator_without_a_fact_is_told_all_the_tables(monkeypatch):
    monkeypatch.setattr(RULES, "_entries", dict(RULES._entries))
    RULES.add("frobnicate", RULES.get("flip"), summary="A new one.")
    with pytest.raises(AssertionError, match="frobnicate needs an entry") as caught:
        test_every_operator_with_a_rule_is_in_every_table_or_left_out_for_a_reason()
    assert all(table.where in str(caught.value) for table in TABLES)


def _known(table: Table) -> set[str]:
    return set(table.entries).union(*table.none.values())
