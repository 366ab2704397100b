"""Timing networks: interleaved, honest about devices and providers, bounded in time."""

from __future__ import annotations

import time

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from prunecli.architectures.reference import InputSpec
from prunecli.errors import DeviceError, InputError, LoadRefusedError
from prunecli.exporting import benchmark, check_devices, physical_cores, to_onnx
from prunecli.exporting.onnx.runtime import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    check_use,
    open_session,
    profile_providers,
    read_profile,
)
from prunecli.exporting.timing.benchmark import (
    percentiles,
    ratio_interval,
    summarise,
    time_interleaved,
)
from prunecli.exporting.timing.engines import Contestant, Setting, find_cuda, torch_runner
from tests.support.structured_networks import Several

SPEC = InputSpec(3, 32, 32, (0.5,) * 3, (0.2,) * 3)


def make_net(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 4),
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    slim, dense = folder / "slim.onnx", folder / "dense.onnx"
    to_onnx(make_net(16), slim, input=SPEC)
    to_onnx(make_net(128), dense, input=SPEC)
    return slim, dense


def test_a_much_smaller_network_is_measured_to_be_faster(files):
    slim, dense = files
    steps = []
    rows = benchmark(
        slim,
        dense,
        input=SPEC,
        batches=(1, 8),
        threads=1,
        flops_ratio=0.02,
        runs=10,
        progress=steps.append,
    )
    assert [(row.device, row.provider, row.batch, row.threads) for row in rows] == [
        ("cpu", CPU_PROVIDER, 1, 1),
        ("cpu", CPU_PROVIDER, 8, 1),
    ]
    for row in rows:
        assert row.runs >= 10
        assert row.flops_ratio == 0.02
        assert row.speedup == pytest.approx(row.dense_ms / row.slim_ms)
        assert 1 < row.speedup_low <= row.speedup_high
        assert set(row.slim_percentiles) == {"p50", "p90", "p95", "p99"}
        assert row.slim_percentiles["p50"] == row.slim_ms
        assert row.dense_percentiles["p50"] == row.dense_ms
        assert list(row.dense_percentiles.values()) == sorted(row.dense_percentiles.values())
    assert (steps[0].done, steps[-1].done, steps[-1].total) == (0, 2, 2)


def test_without_a_dense_network_there_is_no_speedup(files):
    (row,) = benchmark(files[0], input=SPEC, batches=(1,), threads=1, runs=5, time_limit=0.2)
    assert row.dense_ms is row.speedup is row.speedup_low is row.speedup_high is None
    assert row.dense_percentiles == {}
    assert row.slim_ms > 0


def test_the_default_thread_count_is_the_number_of_physical_cores(files):
    (row,) = benchmark(files[0], input=SPEC, batches=(1,), runs=5, time_limit=0.2)
    assert row.threads == physical_cores() >= 1


def test_runners_take_turns():
    calls: list[str] = []
    runners = [lambda: calls.append("a"), lambda: calls.append("b")]
    times = time_interleaved(runners, runs=20, time_limit=0.02)
    measured = "".join(calls)[-2 * len(times) :]
    assert times.shape[1] == 2
    assert measured == "ab" * len(times)
    assert calls[:3] == ["a", "a", "a"]  # the warm-up is not measured


def test_idle_threads_of_one_network_do_not_spin_beside_the_other(files):
    options = open_session(files[0], threads=2).get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_slow_networks_stop_at_the_time_limit_but_not_before_five_rounds():
    begin = time.perf_counter()
    times = time_interleaved([lambda: time.sleep(0.02)] * 2, runs=1000, time_limit=0.1)
    assert len(times) == 5
    assert time.perf_counter() - begin < 2
    assert (times >= 0.02).all()


def test_fast_networks_get_more_rounds_than_asked_for():
    assert len(time_interleaved([lambda: time.sleep(0.001)], runs=5, time_limit=10)) > 50


def test_percentiles_are_those_of_a_known_row_of_numbers():
    milliseconds = percentiles(np.arange(101) / 1e3)
    assert milliseconds == pytest.approx({"p50": 50, "p90": 90, "p95": 95, "p99": 99})


def test_the_interval_of_the_speedup_holds_the_true_ratio_and_repeats():
    generator = np.random.default_rng(1)
    drift = generator.lognormal(0, 0.3, 400)
    slim = drift * generator.lognormal(0, 0.05, 400)
    dense = 1.7 * drift * generator.lognormal(0, 0.05, 400)
    times = np.stack([slim, dense], axis=1)
    low, high = ratio_interval(times, seed=0)
    assert low < 1.7 < high
    assert high - low < 0.4
    assert ratio_interval(times, seed=0) == (low, high)


def test_equal_networks_have_one_in_their_interval():
    times = np.random.default_rng(0).lognormal(0, 0.1, (300, 2))
    named = {"slim": times[:, 0], "dense": times[:, 1]}
    row = summarise(named, "cpu", CPU_PROVIDER, Setting(SPEC, 1, 1, 0))
    assert row.speedup_low < 1 < row.speedup_high


def test_a_file_in_another_precision_is_timed_beside_float():
    slim = np.random.default_rng(0).lognormal(0, 0.1, 300)
    row = summarise({"slim": slim, "float": 2 * slim}, "cpu", CPU_PROVIDER, Setting(SPEC, 1, 1, 0))
    assert row.gain == pytest.approx(2)
    assert row.gain_low == pytest.approx(2)
    assert row.float_ms == pytest.approx(2 * row.slim_ms)
    assert row.speedup is None


def test_a_device_that_is_not_there_is_exit_6_before_anything_is_timed(files, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    steps = []
    with pytest.raises(DeviceError, match="no CUDA device") as caught:
        benchmark(*files, input=SPEC, devices=("cpu", "cuda"), progress=steps.append)
    assert (caught.value.code, caught.value.exit_code) == ("DEVICE_MISSING", 6)
    assert steps == []
    with pytest.raises(DeviceError, match="no CUDA device"):
        check_devices(("cpu", "cuda"))
    check_devices(("cpu",))


def test_an_unknown_device_is_refused(files):
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        benchmark(*files, input=SPEC, devices=("gpu",))


def test_without_onnxruntime_gpu_torch_times_the_gpu_if_it_has_the_models(files, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU_PROVIDER])
    assert find_cuda([Contestant(files[0], make_net(16))]).provider == "torch"
    with pytest.raises(DeviceError, match="onnxruntime cannot use it") as caught:
        find_cuda([Contestant(files[0])])
    assert caught.value.code == "DEVICE_MISSING"


def test_with_onnxruntime_gpu_its_cuda_provider_is_taken(files, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA_PROVIDER, CPU_PROVIDER])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)
    assert find_cuda([Contestant(files[0])]).provider == CUDA_PROVIDER


def test_torch_runs_a_copy_of_the_model_in_eval_mode():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append((self.training, tuple(x.shape), torch.is_inference_mode_enabled()))
            return x

    model = Spy().train()
    torch_runner("cpu")(Contestant(None, model), Setting(SPEC, 8, 1, 0))()
    assert seen == [(False, (8, 3, 32, 32), True)]
    assert model.training


def test_the_profile_of_a_cpu_session_names_the_cpu_provider_for_every_heavy_node(files):
    use = profile_providers(files[0], provider=CPU_PROVIDER, threads=1, input=SPEC)
    assert len(use.heavy) == 3  # two convolutions and a matrix product
    assert set(use.heavy.values()) == {CPU_PROVIDER}
    check_use(use, provider=CPU_PROVIDER, where="slim.onnx")
    with pytest.raises(DeviceError, match="3 heavy nodes ran elsewhere") as caught:
        check_use(use, provider=CUDA_PROVIDER, where="slim.onnx")
    assert (caught.value.code, caught.value.exit_code) == ("PROVIDER_FELL_BACK", 6)


def event(name: str, operator: str, provider: str | None) -> dict[str, object]:
    arguments = {"op_name": operator} | ({"provider": provider} if provider else {})
    return {"cat": "Node", "name": f"{name}_kernel_time", "args": arguments}


def test_shape_bookkeeping_may_stay_on_the_cpu_but_a_convolution_may_not():
    good = [
        {"cat": "Session", "name": "model_run", "args": {}},
        event("conv", "Conv", CUDA_PROVIDER),
        event("shape", "Shape", CPU_PROVIDER),
    ]
    check_use(read_profile(good), provider=CUDA_PROVIDER, where="net.onnx")
    bad = [*good, event("other", "Conv", CPU_PROVIDER)]
    with pytest.raises(DeviceError, match=r"1 heavy nodes ran elsewhere: \['other'\]"):
        check_use(read_profile(bad), provider=CUDA_PROVIDER, where="net.onnx")


def test_a_provider_that_ran_nothing_fell_back():
    events = [event("relu", "Relu", CPU_PROVIDER), event("fence", "Conv", None)]
    with pytest.raises(DeviceError, match="only"):
        check_use(read_profile(events), provider=CUDA_PROVIDER, where="net.onnx")


@pytest.mark.skipif(CUDA_PROVIDER in ort.get_available_providers(), reason="it is installed")
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider':UserWarning")
def test_a_session_that_falls_back_is_an_error_and_not_a_cpu_session(files):
    with pytest.raises(DeviceError, match="could not be started"):
        open_session(files[0], provider=CUDA_PROVIDER)


def test_a_corrupt_contestant_is_refused(files, tmp_path):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"nothing that anybody could run")
    with pytest.raises(LoadRefusedError, match="not a readable ONNX model"):
        benchmark(bad, files[1], input=SPEC)


def test_several_inputs_and_outputs_are_timed(tmp_path):
    model = Several()
    spec = InputSpec.of(
        (torch.randn(1, 3, 8, 8), torch.rand(1, 1, 8, 8), torch.randint(50, (1, 3))), model
    )
    to_onnx(model, tmp_path / "net.onnx", input=spec)
    rows = benchmark(tmp_path / "net.onnx", input=spec, batches=(1, 2), runs=5, time_limit=0.5)
    assert [row.batch for row in rows] == [1, 2]
    assert all(row.slim_ms > 0 for row in rows)
    torch_runner("cpu")(Contestant(None, model), Setting(spec, 2, 1, 0))()


def test_a_file_with_a_fixed_batch_is_timed_with_that_one(tmp_path):
    class Fixed(nn.Module):
        def forward(self, x):
            return x.view(2, 3, 1024).mean(2)

    to_onnx(Fixed(), tmp_path / "net.onnx", input=SPEC)
    rows = benchmark(tmp_path / "net.onnx", input=SPEC, batches=(1, 8), runs=5, time_limit=0.5)
    assert [row.batch for row in rows] == [2]
