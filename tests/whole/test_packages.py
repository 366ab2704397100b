"""Models of other packages, from module to ONNX file: pruned in their own class, proven, compared.

pip install -e '.[zoo-test]'
"""

from __future__ import annotations

import pytest
import torch

import prunecli
from prunecli.graph.tracing.record import tensors_in
from tests.support.onnx_outputs import relative_differences
from tests.support.package_models import MODELS

QUICK = tuple(name for name in MODELS if name != "yolo11n")
"""Which takes the roads of `yolov8n`; `tests/benchmarks/packages.py` runs it."""


@pytest.fixture(scope="module", params=QUICK)
def case(request):
    entry = MODELS[request.param]
    pytest.importorskip(entry.package)
    torch.set_num_threads(1)
    model = entry.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model(entry.example())  # as people do before they prune
    result = prunecli.prune(model, entry.example(), flops=0.5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return request.param, entry, model, result


def test_a_model_keeps_its_class_and_half_of_its_flops_and_is_proven(case):
    name, _, model, result = case
    report = result.report
    assert (report.mode, type(result.model)) == ("module", type(model))
    assert 0.48 <= report.cost.kept["flops"] <= 0.5
    assert (report.verified.by_structure, report.verified.limits) == (True, ())
    assert report.verified.scope.startswith("any batch")
    assert report.training.verified, name


def test_outputs_have_the_form_of_the_package_at_every_size(case):
    _, entry, model, result = case
    for size in (entry.shape, *entry.sizes):
        for batch in (1, 3):
            images = entry.example(batch, size)
            with torch.no_grad():
                slim, dense = result.model(images), model(images)
            assert type(slim) is type(dense)
            shapes = [[value.shape for value in tensors_in(one)] for one in (slim, dense)]
            assert shapes[0] == shapes[1]


def test_a_pruned_model_trains_as_its_package_trains_it(case):
    _, entry, _, result = case
    without = []
    for model in (result.model, entry.build()):
        model.train()
        outputs = [value for value in tensors_in(model(entry.example(2))) if value.requires_grad]
        sum(value.square().mean() for value in outputs).backward()
        without.append([name for name, value in model.named_parameters() if value.grad is None])
        model.eval()
        model.zero_grad()
    assert without[0] == without[1]


def test_a_saved_model_loads_without_its_package(case, tmp_path):
    _, entry, _, result = case
    prunecli.save(result, tmp_path / "slim.pt")
    loaded, images = prunecli.load(tmp_path / "slim.pt"), entry.example(3)
    with torch.no_grad():
        pairs = zip(tensors_in(loaded(images)), tensors_in(result.model(images)), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_every_output_of_the_onnx_file_is_that_of_torch(case, tmp_path):
    _, entry, _, result = case
    path = tmp_path / "slim.onnx"
    sizes = entry.sizes if entry.one_file else ()
    prunecli.export(result, path, dynamic_size=bool(sizes))
    for size in (entry.shape, *sizes):
        for batch in (1, 3):
            found = relative_differences(result.model, path, entry.example(batch, size))
            assert max(found) < 1e-4, (size, batch, found)
