"""The training loop of the lesson. It needs torch and nothing else.

`train` takes a model, batches and an optimizer that are ready to use, and yields one `Epoch` a pass over the
training images. Whoever calls it decides what to do with each: print it, plot it, save it, or stop early.
"""

import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.runtime.checkpoint import Checkpoint
from cnnlesson.runtime.device import gradient_scaler, mixed_precision
from cnnlesson.runtime.memory import memory_advice


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


class Predictions(NamedTuple):
    """The network's answers, in the order of the batches, in the processor's memory."""

    labels: torch.Tensor  # int64 (N,): what the images are
    probabilities: torch.Tensor  # float32 (N, num_classes): what the network gives each class, 1 in all


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
    history = []
    if checkpoint is not None:
        scaler = gradient_scaler(model, optimizer)
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
        if hasattr(train_batches, "set_epoch"):
            train_batches.set_epoch(number - 1)  # another order of the images in each epoch
        learning_rate = optimizer.param_groups[0]["lr"]
        training = train_one_epoch(model, train_batches, optimizer, scheduler)
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
) -> Score:
    """One pass over `batches`, a step of the optimizer for each; the arguments are those of `train`.

    Sums stay on the device until the last batch is under way, so the processor never waits inside the loop.
    """
    scaler = gradient_scaler(model, optimizer)
    model.train()
    sums = _Sums()
    for images, labels in batches:
        with memory_advice(images):
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
        with memory_advice(images), mixed_precision(images.device):
            logits = model(images)  # (N, num_classes)
            loss = F.cross_entropy(logits, labels)
        sums.add(loss, logits, labels)
    return sums.score()


@torch.no_grad()
def predict(model: nn.Module, batches: Iterable) -> Predictions:
    """The model's probabilities for each image of `batches`, with dropout off and batch norm's running statistics.

    Args:
        model: on the device of the batches; its output is logits (N, num_classes).
        batches: gives pairs of images (N, 3, H, W) and labels (N,). `Batches` without a seed keeps the set's order.
    """
    model.eval()
    labels, probabilities = [], []
    for images, labels_of_batch in batches:
        with mixed_precision(images.device):
            logits = model(images)  # (N, num_classes)
        labels.append(labels_of_batch)
        probabilities.append(logits.float().softmax(dim=1))
    if not labels:
        raise ValueError("there was no batch to go through: give a set with at least one image")
    return Predictions(torch.cat(labels).cpu(), torch.cat(probabilities).cpu())


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
        return Score(float(self.loss) / self.num_images, float(self.correct) / self.num_images, self.num_images)
