"""The training loop of the lesson.

`train` takes a model, batches and an optimizer that are ready to use, and yields one `Epoch` after each pass over the
training images. Its caller decides what to do with each epoch: print it, plot it, save it, or stop early.
"""

import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.runtime.checkpoint import Checkpoint
from cnnlesson.runtime.device import evaluation_precision, gradient_scaler, mixed_precision
from cnnlesson.runtime.memory import memory_advice

CHECK_EVERY = 100  # steps, for divergence: each check makes the CPU wait for the GPU


@dataclass(frozen=True)
class Epoch:
    """The metrics of one pass over the training images.

    Losses are mean cross-entropies in nats per image; accuracies are between 0 and 1. Training metrics are measured
    while the weights change, with dropout and augmentation; validation metrics after the pass, without them.
    """

    number: int  # a 1-based index
    epochs: int  # the number of epochs that the training runs unless it ends early
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float  # of the first step
    seconds: float  # training and validation
    images_per_second: float  # training only
    diverged: bool  # the training loss became infinite or NaN, and the training has ended here
    # Tables that older versions wrote lack these:
    steps: int = 0  # of the optimizer, since the training began: one per batch
    val_images: int = 0  # the number of validation images
    val_right: str = ""  # which of them were classified correctly, as in `Score.right`


class Score(NamedTuple):
    """How well a model does on a set of images: mean cross-entropy in nats per image, accuracy between 0 and 1."""

    loss: float
    accuracy: float
    num_images: int
    num_batches: int
    right: str  # which images were classified correctly, a bit each in hexadecimal: see `cnnlesson.noise.right_images`


class Predictions(NamedTuple):
    """The answers of a network, in the order of the batches, on the CPU."""

    labels: torch.Tensor  # int64 (N,): the true classes
    probabilities: torch.Tensor  # float32 (N, num_classes): each row sums to 1


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
        model: on the batches' device, compiled or not. It returns logits (N, num_classes).
        train_batches: yields pairs of images (N, 3, H, W) and labels (N,) each time it is iterated over.
        val_batches: the same, from images that the model is not trained on.
        optimizer: holds the model's parameters. fused=True is fastest; without it, a GPU that computes in float16 makes
            the CPU wait in each step.
        epochs: the number of passes.
        scheduler: is stepped after every batch, not after every epoch.
        checkpoint: a file that keeps the state of the training after each epoch. If it exists, its epochs are yielded
            first, and the training continues as if it had never stopped.

    An infinite or NaN training loss ends the training: its epoch has `diverged=True` and is the last one.
    """
    # Channels last: convolutions are faster in this memory layout.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack memory_format

    # Continue after the epochs in the checkpoint, if there are any.
    history = []
    if checkpoint is not None:
        state = Checkpoint(checkpoint, model, optimizer, scheduler, train_batches)
        history = [Epoch(**epoch | {"epochs": epochs}) for epoch in state.load()]
        if len(history) > epochs:
            raise ValueError(
                f"the checkpoint {checkpoint} has {len(history)} epochs already, more than {epochs}: name another file"
            )
        yield from history
        if history and history[-1].diverged:
            return

    for number in range(len(history) + 1, epochs + 1):
        # Shuffle the images differently in each epoch.
        if hasattr(train_batches, "set_epoch"):
            train_batches.set_epoch(number - 1)

        # Read the learning rate before the scheduler changes it.
        learning_rate = optimizer.param_groups[0]["lr"]

        # Learn from the training images, then evaluate on images that the model has not learned from.
        start = time.perf_counter()
        training = train_one_epoch(model, train_batches, optimizer, scheduler)
        training_seconds = time.perf_counter() - start
        validation = evaluate(model, val_batches)

        # After an infinite or NaN loss the weights are lost: more epochs would not help.
        diverged = not math.isfinite(training.loss)
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
            steps=(history[-1].steps if history else 0) + training.num_batches,
            val_images=validation.num_images,
            val_right=validation.right,
        )

        # Save before yielding: the caller may stop here, and the epoch must not be lost.
        history.append(epoch)
        if checkpoint is not None:
            state.save([asdict(epoch) for epoch in history])
        yield epoch
        if diverged:
            return


@torch.enable_grad()
def train_one_epoch(
    model: nn.Module,
    batches: Iterable,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> Score:
    """Train `model` for one pass over `batches`, with one step of the optimizer per batch.

    The arguments are those of `train`. The loss and accuracy that are returned were measured while the weights changed.
    If training diverges, the loss is NaN, and the pass ends early.
    """
    # float16 rounds small gradients to 0, so there the loss is scaled up. In other types the scaler does nothing.
    scaler = gradient_scaler(model, optimizer)
    # One infinite or NaN loss ruins the weights. In float16 a single one is harmless, since the scaler skips its step.
    patience = 10 if scaler.is_enabled() else 1
    # Training mode: dropout is on, and batch norm uses the statistics of each batch.
    model.train()
    seen, scale = _Seen(), scaler.get_scale()
    for images, labels in batches:
        with memory_advice(images):
            # Forward pass, with convolutions and matrix products in the fastest type of the device.
            with mixed_precision(images.device):
                logits = model(images)  # (N, num_classes)
                loss = F.cross_entropy(logits, labels)
            # Backward pass. Gradients add up, so clear those of the previous step first.
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            # Unscale the gradients, then step. If a scaled gradient overflowed, skip the step and lower the scale.
            scaler.step(optimizer)
            scaler.update()
        # Learning rate schedules count steps, not epochs, and leave out the steps that the scaler has skipped.
        if scheduler is not None:
            scale, scale_before = scaler.get_scale(), scale
            if scale >= scale_before:
                scheduler.step()
        # Keep the loss on the device: loss.item() would make the CPU wait for the GPU in each step.
        seen.add(loss, logits, labels)
        # Check now and then whether the training has diverged.
        if len(seen.losses) % CHECK_EVERY == 0 and seen.diverges(patience):
            break
    return seen.score(patience)


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable) -> Score:
    """Return the model's loss and accuracy over `batches`, in evaluation mode."""
    # Evaluation mode: dropout is off, and batch norm uses its running statistics.
    model.eval()
    seen = _Seen()
    for images, labels in batches:
        # Forward pass only. no_grad keeps nothing for a backward pass.
        with memory_advice(images), evaluation_precision(images.device):
            logits = model(images)  # (N, num_classes)
            loss = F.cross_entropy(logits, labels)
        seen.add(loss, logits, labels)
    return seen.score()


@torch.no_grad()
def predict(model: nn.Module, batches: Iterable) -> Predictions:
    """Return the model's probabilities for each image of `batches`, in evaluation mode.

    `Batches` without a seed keep the order of the set.
    """
    # Evaluation mode, as in `evaluate`.
    model.eval()
    labels, probabilities = [], []
    for images, labels_of_batch in batches:
        with memory_advice(images), evaluation_precision(images.device):
            logits = model(images)  # (N, num_classes)
        # Softmax in float32: 16-bit probabilities would not sum to 1.
        probabilities.append(logits.float().softmax(dim=1))
        labels.append(labels_of_batch)
    if not labels:
        raise ValueError("there are no batches: use a set with at least one image")
    return Predictions(torch.cat(labels).cpu(), torch.cat(probabilities).cpu())


class _Seen:
    """What a pass has seen: the loss of each batch, and which of its images were classified correctly."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []
        self.right: list[torch.Tensor] = []  # bool (B,) each; both stay on their device

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self.losses.append(loss.detach())
        self.right.append(logits.argmax(dim=1) == labels)

    def diverges(self, patience: int) -> bool:
        """Wait for the device, and return whether the last `patience` losses are all infinite or NaN."""
        return not torch.stack(self.losses[-patience:]).isfinite().any()

    def score(self, patience: int | None = None) -> Score:
        """Wait for the device, and return the means over all images. With `patience`, overflows are left out."""
        if not self.losses:
            raise ValueError("there are no batches: use a set with at least one image")
        losses = torch.stack(self.losses).cpu().double()  # (batches,)
        sizes = torch.tensor([len(right) for right in self.right]).double()  # (batches,)
        right = torch.cat(self.right).cpu().numpy()  # bool (images,)
        # A loss that overflowed, with finite losses after it, has done no harm.
        if patience is not None and not self.diverges(patience):
            sizes = sizes.where(losses.isfinite(), 0)
            losses = losses.nan_to_num(0, 0, 0)
        # Each image counts equally, also in a smaller last batch.
        loss = float(losses @ sizes / sizes.sum())
        return Score(loss, float(right.mean()), len(right), len(losses), np.packbits(right).tobytes().hex())
