"""Two processes that look at images together: each at its batches, with one result."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.two_processes import in_two_processes

SIGNALS = ("taylor", "fisher", "mean-activation", "obd", "taylor-2019", "l1")

SCRIPT = """
from functools import partial
from torch import nn
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from accelerate import PartialState
from prunecli.processes import done_by_main, joined, pooled
from prunecli.pruning.scoring import help_score, score_signals

SIGNALS = {signals!r}
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
).eval()
images = [(torch.randn(count, 3, 8, 8), torch.randint(0, 5, (count,))) for count in (4, 4, 3)]
batches = lambda: iter(images)
network = read_network(model, (torch.zeros(2, 3, 8, 8),))
options = PruneOptions()
alone = score_signals(network, SIGNALS, options, batches=batches)
steps = []
count = lambda step: steps.append(step.done)
work = partial(score_signals, network, SIGNALS, options, batches=batches, progress=count)
PartialState(cpu=True)
group = joined()

def help_with(request):
    return partial(help_score(network, options, batches, request), progress=count)

together = done_by_main(group, work, help_with)
looked = steps[-1]

def spoilt(request):
    return lambda: pooled(lambda: 1 / 0)

in_spite = done_by_main(group, work, spoilt)
refused = done_by_main(group, work, lambda request: None)
found = dict(alone=alone, together=together, in_spite=in_spite, refused=refused, looked=looked)
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    return in_two_processes(SCRIPT.format(signals=SIGNALS), folder)


@pytest.mark.parametrize("signal", SIGNALS)
def test_two_processes_score_as_one_does(both, signal):
    for found in both:
        np.testing.assert_allclose(found["together"][signal], found["alone"][signal], rtol=1e-10)


def test_each_process_looks_at_its_own_batches(both):
    assert [found["looked"] for found in both] == [7, 4]


@pytest.mark.parametrize("how", ["in_spite", "refused"])
@pytest.mark.parametrize("signal", SIGNALS)
def test_the_main_process_scores_alone_where_another_cannot_help(both, signal, how):
    for found in both:
        assert np.array_equal(found[how][signal], found["alone"][signal], equal_nan=True)
