"""The pretended GPU raises and waits if a real one would."""

import copy
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretend_gpu import pretend_gpu
from torch import nn

HERE, THERE = torch.device("cpu"), torch.device("cuda:0")


@pytest.mark.parametrize(
    "operation",
    [
        lambda a, b: a + a,
        lambda a, b: a + 1,
        lambda a, b: a * torch.tensor(2.0),  # a number on the CPU
        lambda a, b: a[1:],
        lambda a, b: a.view(1, 3),
        lambda a, b: b.to("cuda"),
        lambda a, b: b.to(a.device),
        lambda a, b: b.to(a),
        lambda a, b: a.to(torch.float64),
        lambda a, b: a.detach(),
        lambda a, b: copy.deepcopy(a),
        lambda a, b: torch.zeros_like(a),
        lambda a, b: a.new_zeros(2),
        lambda a, b: torch.cat([a, a]),
        lambda a, b: F.one_hot(a.long(), 3),
        lambda a, b: torch.stack([a]).mean(),
        lambda a, b: a.split(1)[2],
        lambda a, b: a.sort().values,
        lambda a, b: a[b.long()],  # indices may be on the CPU
        lambda a, b: nn.Linear(3, 3).to("cuda")(a),
        lambda a, b: nn.BatchNorm1d(3).cuda().running_mean,
    ],
)
def test_results_stay_on_the_gpu(operation):
    with pretend_gpu("T4"):
        result = operation(torch.ones(3, device="cuda"), torch.ones(3))
        assert (result.device, result.is_cuda) == (THERE, True)


@pytest.mark.parametrize("operation", [lambda a: a.cpu(), lambda a: a.to("cpu"), lambda a: a.to(torch.ones(1))])
def test_copies_to_the_cpu_are_copies(operation):
    with pretend_gpu("T4"):
        a = torch.ones(3, device="cuda")
        here = operation(a)
        assert (here.device, here.is_cuda) == (HERE, False)
        here.add_(1)
        assert a.sum().item() == 3


@pytest.mark.parametrize(
    "mixture",
    [
        lambda a, b: a + b,
        lambda a, b: torch.cat([a, b]),
        lambda a, b: a.add_(b),
        lambda a, b: b.add_(a),
        lambda a, b: F.mse_loss(a, b),
        lambda a, b: torch.where(a > 0, a, b),
        lambda a, b: b[a.long()],
        lambda a, b: torch.cdist(a[:, None], b[:, None]),
        lambda a, b: a.numpy(),
        lambda a, b: np.asarray(a),
        lambda a, b: nn.Linear(3, 3)(a),
        lambda a, b: nn.Linear(3, 3).cuda()(b),
        lambda a, b: torch.randn(3, device="cuda", generator=torch.Generator()),
        lambda a, b: a.normal_(generator=torch.Generator()),
        lambda a, b: nn.Linear(3, 3).cuda()(a).backward(b),
        lambda a, b: torch.bincount(a.long(), b),
        lambda a, b: b.index_select(0, a.long()),
    ],
)
def test_mixing_devices_raises(mixture):
    with pretend_gpu("T4"), pytest.raises((RuntimeError, TypeError)):
        mixture(torch.ones(3, device="cuda"), torch.ones(3))


@pytest.mark.parametrize(
    ("waits", "operation"),
    [
        (False, lambda a: a[torch.arange(2, device="cuda")] * 2),
        (False, lambda a: a.clone().fill_(0)),
        (False, lambda a: (a == a.sum()).sum()),
        (False, lambda a: torch.ones(2).to("cuda", non_blocking=True)),
        (True, lambda a: a.sum().item()),
        (True, lambda a: float(a.sum())),
        (True, lambda a: bool(a.sum() > 0)),
        (True, lambda a: a[a > 0]),
        (True, lambda a: a[torch.arange(2)]),
        (True, lambda a: a.nonzero()),
        (True, lambda a: a.tolist()),
        (True, lambda a: a.cpu()),
        (True, lambda a: f"{a.sum():.1f}"),
        (True, lambda a: torch.ones(2).to("cuda")),
        (True, lambda a: torch.tensor([1.0, 2.0], device="cuda")),
    ],
)
def test_what_makes_the_cpu_wait(waits, operation):
    with pretend_gpu("T4") as gpu:
        a = torch.arange(4.0, device="cuda")
        gpu.syncs.clear()
        operation(a)
        assert (len(gpu.syncs) > 0) == waits
        torch.cuda.set_sync_debug_mode("error")
        if waits:
            with pytest.raises(RuntimeError, match="synchronizing"):
                operation(a)


def test_files_remember_what_was_on_the_gpu():
    with pretend_gpu("T4"):
        a = torch.arange(4.0, device="cuda")
        file = io.BytesIO()
        torch.save({"there": a, "here": a.cpu()}, file)
        file.seek(0)
        content = torch.load(file, weights_only=True)
        assert (content["there"].device, content["here"].device) == (THERE, HERE)
        file.seek(0)
        assert torch.load(file, map_location="cpu", weights_only=True)["there"].device == HERE
    assert torch.ones(1).device == HERE and not torch.cuda.is_available()


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_is_made_on_the_gpu_without_waiting(fused):
    with pretend_gpu("A100") as gpu:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(144, 2))
        model.to("cuda")
        assert all(tensor.is_cuda for tensor in model.state_dict().values())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=fused)
        gpu.syncs.clear()
        with torch.autocast("cuda", torch.bfloat16):
            logits = model(torch.ones(5, 3, 8, 8, device="cuda"))
        assert logits.dtype is torch.bfloat16
        logits.float().sum().backward()
        optimizer.step()
        assert not gpu.syncs
        assert all(parameter.grad.is_cuda for parameter in model.parameters())
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert all(state["momentum_buffer"].is_cuda for state in optimizer.state.values())


def test_more_than_the_memory_raises():
    with pretend_gpu("T4", memory=1000):
        torch.zeros(100, device="cuda") * 2
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(10, device="cuda").repeat(100)
