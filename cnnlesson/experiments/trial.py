"""One trial of the exercise: the function that lesson 4, the shell and the check of `run` share."""

import math
import os
from collections.abc import Callable, Iterator

import torch
from torch import nn

from cnnlesson.data import Batches, ImageSet
from cnnlesson.training import Epoch, train

MOMENTUM = 0.9  # of stochastic gradient descent, as in both papers


def run(
    lr: float,
    batch_size: int,
    weight_decay: float,
    train_set: ImageSet,
    val_set: ImageSet,
    build_model: Callable[[], nn.Module],
    image_size: int,
    epochs: int,
    seed: int,
    checkpoint: str | os.PathLike | None,
    augment: bool = False,
    device: str | None = None,
    schedule: Callable[[int, int], float] | None = None,
) -> Iterator[Epoch]:
    """Train a new network at one point of the grid, and yield an `Epoch` after each pass over the training images.

    Args:
        lr, batch_size, weight_decay: the point.
        train_set, val_set: the images to train on, and those to evaluate on after each epoch.
        build_model: returns a new network with random weights.
        image_size: height and width in pixels of the images that the network gets.
        epochs: number of passes over the training images.
        seed: of the initial weights, the order of the images and their augmentation.
        checkpoint: the file that keeps the state of the training; see `cnnlesson.training.train`.
        augment: flip and shift the training images at random.
        device: such as "cpu" or "cuda"; None uses the GPU if there is one.
        schedule: called with the number of steps so far and of all steps, it returns the factor by which `lr` is
            multiplied in the next step, such as `cosine_with_warmup`; None keeps `lr` constant.
    """
    # The same seed before every network: two trials then start from the same initial weights.
    torch.manual_seed(seed)
    train_batches = Batches(train_set, batch_size, image_size, seed=seed, augment=augment, device=device)
    val_batches = Batches(val_set, min(256, len(val_set)), image_size, device=device)
    model = build_model().to(train_batches.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=weight_decay, fused=True)
    scheduler = None
    if schedule is not None:
        steps = epochs * len(train_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, steps))
    yield from train(model, train_batches, val_batches, optimizer, epochs, scheduler, checkpoint)


def cosine_with_warmup(step: int, steps: int) -> float:
    """Warm-up, then a cosine: the factor rises from 0 to 1 over the first tenth of all steps, then falls to 0."""
    warmup = steps // 10
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def trained_model(build_model: Callable[[], nn.Module], checkpoint: str | os.PathLike) -> nn.Module:
    """A network of `build_model` on the CPU, with the weights that `run` has left in its checkpoint."""
    model = build_model()
    model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["model"])
    return model
