"""The training loop of the lesson. It needs torch and nothing else.

`train` takes a model, batches and an optimizer that are ready to use, and yields one `Epoch` a pass over the
training images. Whoever calls it decides what to do with each: print it, plot it, save it, or stop early.
"""

import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.checkpoint import Checkpoint
from cnnlesson.distributed import sum_over_processes


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images gave.

    Losses are mean cross-entropies in nats an image; accuracies are between 0 and 1. The training figures are
    taken while the weights change, with dropout and augmentation on; the validation figures after the pass, without.
    """

    number: int  # 1 for the first
    epochs: int  # how many the training has, where nothing ends it early
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float  # of the first step
    seconds: float  # of training and validation
    images_per_second: float  # of training alone
    diverged: bool  # True: a loss is not finite any more, and training has ended here


class Score(NamedTuple):
    """How a model does over a set of images: mean cross-entropy in nats an image, accuracy between 0 and 1."""

    loss: float
    accuracy: float
    num_images: int


def train(
    model: nn.Module,
    train_batches: Iterable,
    val_batches: Iterable,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> Iterator[Epoch]:
    """Train `model` for `epochs` passes over `train_batches`, and yield an `Epoch` after each.

    Args:
        model: on the device of the batches, compiled or not; its output is logits (N, num_classes).
        train_batches: gives pairs of images (N, 3, H, W) and labels (N,) each time it is iterated over.
        val_batches: the same, from images that are not trained on.
        optimizer: holds the model's parameters. One made with fused=True is the fastest, and on a GPU that trains
            in float16 the only kind that never makes the processor wait for a step.
        epochs: how many passes to make.
        scheduler: stepped after every batch, not every epoch.
        checkpoint: a file that keeps the state of the training after each epoch. Where it is there already, the
            epochs in it are yielded first, and the training goes on after them as if it had never stopped.

    A loss that is not finite ends the training: its epoch has `diverged=True` and is the last.
    """
    model.to(memory_format=torch.channels_last)
    scaler = _gradient_scaler(model)
    history = []
    if checkpoint is not None:
        state = Checkpoint(checkpoint, model, optimizer, scheduler, scaler, train_batches)
        history = [Epoch(**epoch | {"epochs": epochs}) for epoch in state.load()]
        if len(history) > epochs:
            raise ValueError(
                f"the checkpoint {checkpoint} has {len(history)} epochs already, more than {epochs}: name another file"
            )
        yield from history
        if history and history[-1].diverged:
            return
    for number in range(len(history) + 1, epochs + 1):
        start = time.perf_counter()
        learning_rate = optimizer.param_groups[0]["lr"]
        training = train_one_epoch(model, train_batches, optimizer, scheduler, scaler)
        training_seconds = time.perf_counter() - start
        validation = evaluate(model, val_batches)
        diverged = not (math.isfinite(training.loss) and math.isfinite(validation.loss))
        epoch = Epoch(
            number=number,
            epochs=epochs,
            train_loss=training.loss,
            train_accuracy=training.accuracy,
            val_loss=validation.loss,
            val_accuracy=validation.accuracy,
            learning_rate=learning_rate,
            seconds=time.perf_counter() - start,
            images_per_second=training.num_images / training_seconds,
            diverged=diverged,
        )
        history.append(epoch)
        if checkpoint is not None:
            state.save([asdict(epoch) for epoch in history])
        yield epoch
        if diverged:
            return


def train_one_epoch(
    model: nn.Module,
    batches: Iterable,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> Score:
    """One pass over `batches`, a step of the optimizer for each; the arguments are those of `train`.

    Sums stay on the device until the last batch is under way, so the processor never waits inside the loop.
    """
    scaler = scaler or _gradient_scaler(model)
    if scaler.is_enabled():
        _start_momentum_at_zero(optimizer)
    model.train()
    sums = _Sums()
    for images, labels in batches:
        with _memory_advice(images):
            with mixed_precision(images.device):
                logits = model(images)  # (N, num_classes)
                loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        if scheduler is not None:
            scheduler.step()
        sums.add(loss, logits, labels)
    return sums.score()


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable) -> Score:
    """The model's loss and accuracy over `batches`, with dropout off and batch norm's running statistics."""
    model.eval()
    sums = _Sums()
    for images, labels in batches:
        with _memory_advice(images), mixed_precision(images.device):
            logits = model(images)  # (N, num_classes)
            loss = F.cross_entropy(logits, labels)
        sums.add(loss, logits, labels)
    return sums.score()


class _Sums:
    """Adds up batches on their device; a last batch with fewer images counts for as many as it has."""

    def __init__(self):
        self.loss = 0
        self.correct = 0
        self.num_images = 0

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self.loss += loss.detach() * len(labels)
        self.correct += (logits.argmax(dim=1) == labels).sum()
        self.num_images += len(labels)

    def score(self) -> Score:
        if self.num_images == 0:
            raise ValueError("there was no batch to go through: give a set with at least one image")
        sums = float(self.loss), float(self.correct), self.num_images
        loss, correct, num_images = sum_over_processes(sums, self.loss.device)
        return Score(loss / num_images, correct / num_images, int(num_images))


def training_dtype(device: torch.device) -> torch.dtype:
    """What convolutions and matrix products are computed in: the fastest type that `device` has in hardware.

    bfloat16 on GPUs since Ampere and on processors with AVX512-BF16 or AMX; float16 on older GPUs, such as Colab's
    T4; float32 elsewhere. Weights, batch norm and the loss are float32 everywhere.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
        return torch.bfloat16 if native else torch.float32
    return torch.float32


def mixed_precision(device: torch.device) -> torch.autocast:
    """The context in which a forward pass on `device` uses `training_dtype(device)`."""
    dtype = training_dtype(device)
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)


def _gradient_scaler(model: nn.Module) -> torch.amp.GradScaler:
    """float16 rounds small gradients to 0, so there the loss is scaled up first; the other types need no scaling."""
    device = next(model.parameters()).device
    return torch.amp.GradScaler(device.type, enabled=training_dtype(device) is torch.float16)


def _start_momentum_at_zero(optimizer: torch.optim.Optimizer) -> None:
    """Give fused SGD its momentum buffers before its first step.

    Otherwise it takes memory as it finds it, and fills it in its first step. If the gradients of that step overflow in
    float16, which is usual, the scaler skips the step, and the second one uses what lay in that memory as momentum.
    From zero the first step is the same: 0.9 · 0 + gradient.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        if group["fused"] and group["momentum"] and not group["dampening"]:
            for parameter in group["params"]:
                if parameter.requires_grad and optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


@contextmanager
def _memory_advice(images: torch.Tensor) -> Iterator[None]:
    """Says which batch was too large, and what to lower, where a step runs out of memory."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError on a GPU, a plain RuntimeError on a processor
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        batch_size, _, height, width = images.shape
        raise torch.OutOfMemoryError(
            f"out of memory on {images.device} with a batch of {batch_size} images of {height}×{width} pixels: "
            f"lower batch_size (to {max(1, batch_size // 2)}, say) or image_size, or end other notebooks on this device"
        ) from error
