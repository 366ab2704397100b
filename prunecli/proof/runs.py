"""Run networks for a proof, and tell whose forward it is that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from prunecli.errors import ProofError, PruneError
from prunecli.graph.tracing.record import attributes_kept
from prunecli.graph.tracing.running import buffers_kept
from prunecli.proof.inputs import Tensors, cast_to

Run = Callable[[list[Any]], Any]
"""A network that runs on the positional arguments of its forward."""


class DenseFailedError(Exception):
    """The dense network does not run on the inputs of a proof."""


def dense_runs(run: Run) -> Run:
    """Turn what a dense network raises on the inputs of a proof into `DenseFailedError`.

    The inputs may not suit it; that says nothing about its cut.
    """

    def guarded(inputs: list[Any]) -> Any:
        try:
            with torch.no_grad():
                return run(inputs)
        except PruneError:
            raise
        except Exception as error:
            raise DenseFailedError(_first_line(error)) from error

    return guarded


def check_runs(model: nn.Module, slim: nn.Module, example: Sequence[Any]) -> None:
    """Raise `ProofError` where the slim network fails on the example, before any long work."""
    try:
        with torch.no_grad(), attributes_kept(slim), buffers_kept(slim):
            slim(*example)
    except Exception as error:
        try:
            with torch.no_grad(), attributes_kept(model), buffers_kept(model):
                model(*example)
        except Exception:  # noqa: BLE001 - a type that this device has no operators for, say
            return
        raise _does_not_run(slim, error) from error


def run_slim(
    slim: nn.Module,
    state: Tensors,
    precision: torch.dtype,
    run: Callable[[nn.Module, Tensors, list[Any]], Any],
    inputs: list[Any],
) -> Any:
    """Run the slim network on tensors in a precision; its own failure is a `ProofError`."""
    given = {name: cast_to(value, precision) for name, value in state.items()}
    try:
        with torch.no_grad():
            return run(slim, given, inputs)
    except PruneError:
        raise
    except Exception as error:
        raise _does_not_run(slim, error) from error


def _does_not_run(slim: nn.Module, error: Exception) -> ProofError:
    return ProofError(
        f"the pruned model's own forward fails: {_first_line(error)}",
        code="CUT_DOES_NOT_RUN",
        where=type(slim).__name__,
        hint="nothing was written; please report this model",
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0]
