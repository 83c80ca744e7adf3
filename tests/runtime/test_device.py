import time

import pytest
import torch

from cnnlesson.runtime import device as runtime_device
from cnnlesson.runtime.device import (
    busy_share,
    describe,
    device_name,
    find_device,
    free_bytes,
    gradient_scaler,
    training_dtype,
)


@pytest.mark.parametrize(("index", "expected"), [(0, torch.float16), (1, torch.bfloat16)])
def test_a_gpu_computes_in_bfloat16_only_if_its_hardware_supports_it(monkeypatch, index, expected):
    """That is so since Ampere, whose compute capability is 8.0; a machine may have a T4 and an A100."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: [(7, 5), (8, 0)][device.index])
    assert training_dtype(torch.device("cuda", index)) is expected


def gpus(monkeypatch, *capabilities: tuple[int, int]) -> None:
    """A machine with these GPUs, and a PyTorch that was built for GPUs since 7.5."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index or 0])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla P100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90a", "sm_120"])


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(1, True, "cuda"), (0, True, "mps"), (0, False, "cpu"), (1, False, "cuda")]
)
def test_the_default_device_is_the_fastest_that_is_there(monkeypatch, cuda, mps, expected):
    gpus(monkeypatch, *[(7, 5)] * cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    device = find_device(None)
    assert device == find_device(expected)
    assert device.type == expected
    assert training_dtype(torch.device("mps")) is torch.float32


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:1", "device 'cuda:1' is not there, this machine has 1 CUDA GPUs: use 'cpu', or in Colab choose Runtime"),
        ("mps", "device 'mps' is not there"),
        ("xpu", "device 'xpu' is not there"),
        ("gpu", "unknown device 'gpu': use 'cpu', 'cuda', 'cuda:1' for a second GPU, or 'mps' for Apple's"),
    ],
)
def test_a_device_that_is_not_there_is_refused(monkeypatch, name, message):
    gpus(monkeypatch, (7, 5))
    with pytest.raises(ValueError, match=message):
        find_device(name)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0), (12, 0)])
def test_a_gpu_for_which_pytorch_has_kernels_is_found(monkeypatch, capability):
    gpus(monkeypatch, (6, 0), capability)
    assert find_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("capability", [(7, 2), (7, 0), (6, 1), (3, 7)])
def test_a_gpu_that_is_older_than_the_kernels_of_pytorch_is_refused(monkeypatch, capability):
    gpus(monkeypatch, (7, 5), capability)
    assert find_device("cuda").type == "cuda"
    needed = r"capability {}\.{}, at least 7\.5 is needed".format(*capability)
    with pytest.raises(ValueError, match=rf"P100 is too old for PyTorch .* {needed}"):
        find_device("cuda:1")


def test_a_pytorch_that_reports_no_kernels_refuses_no_gpu(monkeypatch):
    gpus(monkeypatch, (7, 5), (3, 5))
    monkeypatch.setattr(torch.cuda, "get_arch_list", list)
    assert find_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16"])
@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_computes_in_bfloat16_only_if_its_hardware_supports_it(monkeypatch, name, native, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {name: native}, raising=False)
    assert training_dtype(torch.device("cpu")) is expected


def test_free_memory_is_that_of_the_gpu_and_unlimited_elsewhere(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 + device.index, 1000))  # free, total
    assert free_bytes(torch.device("cuda", 1)) == 101
    assert free_bytes(torch.device("cpu")) == free_bytes(torch.device("mps")) == float("inf")


def test_devices_are_named_as_people_call_them(monkeypatch):
    gpus(monkeypatch, (6, 0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    names = [device_name(torch.device(kind)) for kind in ("cuda", "cpu", "mps")]
    assert names == ["Tesla P100", "a CPU with 1 thread", "MPS"]


@pytest.mark.parametrize(
    ("options", "has_momentum"),
    [
        ({"fused": True, "momentum": 0.9}, True),
        ({"fused": False, "momentum": 0.9}, False),  # torch creates it from the first gradient
        ({"fused": True, "momentum": 0}, False),
        ({"fused": True, "momentum": 0.9, "dampening": 0.5}, False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_in_float16_the_momentum_of_fused_sgd_starts_at_zero(monkeypatch, dtype, options, has_momentum):
    monkeypatch.setattr(runtime_device, "training_dtype", lambda device: dtype)
    model = torch.nn.Linear(2, 3)
    model.bias.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **options)
    scaler = gradient_scaler(model, optimizer)
    assert gradient_scaler(model, optimizer) is scaler
    assert scaler.is_enabled() == (dtype is torch.float16)
    buffers = {parameter: state["momentum_buffer"] for parameter, state in optimizer.state.items() if state}
    assert list(buffers) == ([model.weight] if has_momentum and dtype is torch.float16 else [])
    assert not any(buffer.any() for buffer in buffers.values())


@pytest.mark.parametrize(("threads", "expected"), [(1, [1.0, 0.5]), (2, [0.75, 0.25]), (4, [0.375, 0.125])])
def test_a_cpu_is_as_busy_as_its_threads_are_on_average_since_the_last_call(monkeypatch, threads, expected):
    clocks = {"perf_counter": iter([10.0, 12.0, 16.0]), "process_time": iter([5.0, 8.0, 10.0])}  # 3 of 2 s, 2 of 4 s
    for name, values in clocks.items():
        monkeypatch.setattr(runtime_device.time, name, values.__next__)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    with busy_share(torch.device("cpu")) as busy:
        assert [busy(), busy()] == expected


def test_how_busy_another_device_is_cannot_be_measured():
    with busy_share(torch.device("mps")) as busy:
        assert busy() is None


def test_versions_of_torch_that_cannot_report_the_capabilities_compute_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert training_dtype(torch.device("cpu")) is torch.float32


def test_a_cpu_is_described_by_its_threads_and_type(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(runtime_device, "training_dtype", lambda device: torch.bfloat16)
    assert describe(torch.device("cpu")) == "a CPU with 2 threads, in bfloat16"


@pytest.mark.parametrize(("name", "expected"), [("cuda:0", 0), ("cuda:1", 1), ("cuda", 1)])
def test_the_utilization_is_that_of_the_given_gpu_or_else_of_the_current_one(monkeypatch, name, expected):
    """The current GPU is set for each thread, and the one that measures has not set it."""
    asked = []
    monkeypatch.setattr(runtime_device, "SAMPLE_SECONDS", 0.01)
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: asked.append(device.index) or 50)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    with busy_share(torch.device(name)) as busy:
        while not asked:
            time.sleep(0.01)
        assert busy() == 0.5
    assert set(asked) == {expected}
