"""Whether the package works on this machine: one page of figures, for example for an issue."""

import copy
import math
import platform
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from cnnlesson import __version__
from cnnlesson.data import Batches, ImageSet, shapes, split, take
from cnnlesson.models import AlexNet, cifar_resnet, resnet18
from cnnlesson.runtime.device import device_name, find_device, gradient_scaler, mixed_precision, training_dtype
from cnnlesson.runtime.memory import peak_memory, reset_peak_memory, reuse_freed_memory
from cnnlesson.training import Epoch, train, train_one_epoch

# For each network: how to build it, the size of its images, the learning rate, and the expected training loss of the
# last epoch. On a CPU in bfloat16, seeds 0 to 4 had losses of 1.62 to 1.80 (four seeds), 1.51 to 1.78 and 2.00 to 2.11.
# A network that does not learn has a loss of ln(10) = 2.30 or more.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, float, tuple[float, float]]] = {
    "AlexNet": (lambda: AlexNet(10, dropout=0.0), 227, 0.003, (1.3, 2.15)),
    "resnet18": (lambda: resnet18(10), 64, 0.01, (1.1, 2.15)),
    "ResNet-20": (lambda: cifar_resnet(20, 10), 32, 0.05, (1.8, 2.25)),
}
NUM_IMAGES, EPOCHS, BATCH_SIZE, FIRST_STEPS = 1000, 3, 16, 8


def run_selftest(options: Namespace) -> int:
    """Print one line per check, and return the exit code: 1 if a check failed."""
    device = find_device(options.device)
    reuse_freed_memory()
    start = time.perf_counter()
    train_set, val_set = split(take(shapes(seed=0).train, NUM_IMAGES, seed=0), (0.9, 0.1), seed=0)
    print(f"cnnlesson {__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "numpy", "pandas", "ipywidgets")))
    print(f"{device_name(device)}, trains in {training_dtype(device)}")
    failed = 0
    for name, check in CHECKS.items():
        try:
            for line in check(device, train_set, val_set):
                print(f"ok      {name}: {line}", flush=True)
        except Exception as error:  # the page shows whatever is wrong, and the other checks go ahead
            failed += 1
            print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
    seconds = time.perf_counter() - start
    print(f"{failed} of {len(CHECKS)} checks failed, {seconds:.0f} s" if failed else f"all is well, {seconds:.0f} s")
    return int(failed > 0)


def check_arithmetic(device: torch.device, train_set: ImageSet, val_set: ImageSet) -> Iterator[str]:
    """A convolution in the type of the device is near the one in float64."""
    torch.manual_seed(0)
    layer, x = nn.Conv2d(16, 16, 3), torch.randn(8, 16, 32, 32)
    with torch.no_grad():
        expected = copy.deepcopy(layer).double()(x.double())
        with mixed_precision(device):
            given = layer.to(device)(x.to(device))
    error = float((given.cpu().double() - expected).abs().max())
    _need(error < 0.05, f"a convolution is wrong by {error:.3g}")
    yield f"a convolution in {given.dtype} is off by at most {error:.1g}"


def check_first_steps(device: torch.device, train_set: ImageSet, val_set: ImageSet) -> Iterator[str]:
    """Fused SGD takes the same first steps as plain SGD, even if the scaler skips the first one."""
    torch.manual_seed(0)
    models, batch = [resnet18(10).to(device)], next(iter(Batches(train_set, BATCH_SIZE, 64, device=device)))
    models.append(copy.deepcopy(models[0]))
    losses = []
    for model, fused in zip(models, (False, True), strict=True):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=fused)
        for _ in range(4):
            torch.full((2**22,), 1e6, device=device)  # freed memory, which the next allocation may get
        losses.append([train_one_epoch(model, [batch], optimizer).loss for _ in range(FIRST_STEPS)])
        scale = gradient_scaler(model, optimizer).get_scale()
    plain, fused = losses[0][-1], losses[1][-1]
    _need(
        math.isclose(plain, fused, rel_tol=0.2),
        f"after {FIRST_STEPS} steps the loss is {plain:.3f} with plain SGD, {fused:.3f}",
    )
    yield f"loss after {FIRST_STEPS} steps {plain:.3f} with plain SGD, {fused:.3f} with fused SGD, scale {scale:g}"


def check_networks(device: torch.device, train_set: ImageSet, val_set: ImageSet) -> Iterator[str]:
    """Each network learns as it did elsewhere."""
    for name, (build, size, lr, (low, high)) in NETWORKS.items():
        reset_peak_memory(device)
        last = list(_train(build, size, lr, device, train_set, val_set, EPOCHS))[-1]
        memory = (peak_memory(device) or math.nan) / 1e9
        figures = (
            f"training loss {last.train_loss:.3f}, validation {last.val_accuracy:.1%}, "
            f"{last.images_per_second:,.0f} images per second, {memory:.1f} GB"
        )
        _need(low < last.train_loss < high, f"{name}: expected a training loss from {low} to {high}, got {figures}")
        yield f"{name}: {figures}"


def check_waits(device: torch.device, train_set: ImageSet, val_set: ImageSet) -> Iterator[str]:
    """On a GPU, the CPU does not wait between the steps of an epoch."""
    if device.type != "cuda":
        yield "only CUDA can report whether the CPU waits"
        return
    batches = Batches(train_set, BATCH_SIZE, 64, seed=0, augment=True, device=device)
    model = resnet18(10).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)

    def unsynchronized() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        try:
            for number, batch in enumerate(batches):
                yield batch
                torch.cuda.set_sync_debug_mode("error" if number < 50 else "default")
        finally:
            torch.cuda.set_sync_debug_mode("default")

    train_one_epoch(model, unsynchronized(), optimizer)
    yield "the CPU never waits for the GPU between two steps"


def check_resuming(device: torch.device, train_set: ImageSet, val_set: ImageSet) -> Iterator[str]:
    """A training that was stopped ends as one that was not."""
    build, size, lr, _ = NETWORKS["ResNet-20"]
    with tempfile.TemporaryDirectory() as folder:
        arguments = (build, size, lr, device, train_set, val_set, 2)
        complete = [epoch.train_loss for epoch in _train(*arguments)]
        next(_train(*arguments, Path(folder) / "checkpoint.pt"))
        resumed = [epoch.train_loss for epoch in _train(*arguments, Path(folder) / "checkpoint.pt")]
    _need(math.isclose(complete[-1], resumed[-1], rel_tol=0.1), f"losses {complete}, resumed {resumed}")
    same = "bit for bit the same" if complete == resumed else f"{resumed[-1]:.4f} instead of {complete[-1]:.4f}"
    yield f"the loss after a stop is {same}"


def _train(
    build: Callable[[], nn.Module],
    size: int,
    lr: float,
    device: torch.device,
    train_set: ImageSet,
    val_set: ImageSet,
    epochs: int,
    checkpoint: Path | None = None,
) -> Iterator[Epoch]:
    torch.manual_seed(0)
    train_batches = Batches(train_set, BATCH_SIZE, size, seed=0, device=device)
    val_batches = Batches(val_set, min(100, len(val_set)), size, device=device)
    model = build().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, fused=True)
    yield from train(model, train_batches, val_batches, optimizer, epochs, checkpoint=checkpoint)


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


CHECKS = {
    "arithmetic": check_arithmetic,
    "first steps": check_first_steps,
    "waiting": check_waits,
    "learning": check_networks,
    "resuming": check_resuming,
}
