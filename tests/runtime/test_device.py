import time

import pytest
import torch

from cnnlesson.runtime import device as runtime_device
from cnnlesson.runtime.device import busy_share, describe, find_device, training_dtype


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


def test_a_gpu_that_is_older_than_the_kernels_of_pytorch_is_refused(monkeypatch):
    gpus(monkeypatch, (7, 5), (6, 0))
    assert find_device("cuda").type == "cuda"
    with pytest.raises(ValueError, match=r"P100 is too old for PyTorch .* capability 6.0, at least 7.5 is needed"):
        find_device("cuda:1")


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_computes_in_bfloat16_only_if_its_hardware_supports_it(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native}, raising=False)
    assert training_dtype(torch.device("cpu")) is expected


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
