"""python -m cnnlesson selftest, with fewer images and epochs."""

import pytest
import torch
from pretend_gpu import pretend_gpu

from cnnlesson.__main__ import main
from cnnlesson.experiments import selftest
from cnnlesson.runtime import device as runtime_device


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A minute's work is cut to seconds: one small network, few images."""
    build, size, lr, _ = selftest.NETWORKS["ResNet-20"]
    monkeypatch.setattr(selftest, "NETWORKS", {"ResNet-20": (build, size, lr, (0.2, 4.0))})
    monkeypatch.setattr(selftest, "NUM_IMAGES", 100)
    monkeypatch.setattr(selftest, "FIRST_STEPS", 2)
    monkeypatch.setattr(selftest, "EPOCHS", 1)


def test_each_check_prints_a_line(capsys):
    assert main(["selftest", "--device", "cpu"]) == 0
    page = capsys.readouterr().out
    for name in ("arithmetic", "first steps", "waiting", "learning", "resuming"):
        assert page.count(f"ok      {name}: ") == 1
    assert "the loss after a stop is bit for bit the same" in page
    assert f"torch {torch.__version__.partition('+')[0]}" in page
    assert "all is well, " in page


@pytest.mark.parametrize(("gpu", "dtype"), [("T4", "float16"), ("A100", "bfloat16")])
def test_on_a_gpu(gpu, dtype, capsys):
    with pretend_gpu(gpu):
        assert main(["selftest"]) == 0
    page = capsys.readouterr().out
    assert f"{gpu}, trains in torch.{dtype}" in page
    assert "the CPU never waits for the GPU between two steps" in page


def test_a_network_that_learns_otherwise_and_a_check_that_raises_fail(capsys, monkeypatch):
    build, size, lr, _ = selftest.NETWORKS["ResNet-20"]
    monkeypatch.setattr(selftest, "NETWORKS", {"ResNet-20": (build, size, lr, (0.0, 0.1))})
    monkeypatch.setattr(selftest, "mixed_precision", lambda device: 1 / 0)
    assert main(["selftest", "--device", "cpu"]) == 1
    page = capsys.readouterr().out
    assert (
        "FAILED  learning: ValueError: ResNet-20: expected a training loss from 0.0 to 0.1, got training loss" in page
    )
    assert "FAILED  arithmetic: ZeroDivisionError" in page
    assert "2 of 5 checks failed, " in page


def test_fused_sgd_that_starts_from_garbage_fails(capsys, monkeypatch):
    """Without zeros, fused SGD uses uninitialized memory as its momentum if the scaler skips the first step."""

    def garbage(optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"] if group["fused"] else []:
                optimizer.state[parameter]["momentum_buffer"] = torch.full_like(parameter, 10.0)

    monkeypatch.setattr(runtime_device, "_start_momentum_at_zero", garbage)
    monkeypatch.setattr(selftest, "FIRST_STEPS", 4)
    monkeypatch.setattr(selftest, "CHECKS", {"first steps": selftest.check_first_steps})
    with pretend_gpu("T4"):
        assert main(["selftest"]) == 1
    assert "FAILED  first steps: ValueError: after 4 steps the loss is" in capsys.readouterr().out
