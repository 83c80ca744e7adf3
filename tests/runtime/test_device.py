import time

import pytest
import torch

from cnnlesson.runtime import device as runtime_device
from cnnlesson.runtime.device import busy_share, describe, training_dtype


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_computes_in_bfloat16_only_if_its_hardware_supports_it(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert training_dtype(torch.device("cuda")) is expected


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
