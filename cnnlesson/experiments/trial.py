"""One trial of the exercise: the function that lesson 4, the shell and the check of `run` share."""

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
    """
    # The same seed before every network: two trials then start from the same initial weights.
    torch.manual_seed(seed)
    train_batches = Batches(train_set, batch_size, image_size, seed=seed, augment=augment, device=device)
    val_batches = Batches(val_set, min(256, len(val_set)), image_size, device=device)
    model = build_model().to(train_batches.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=weight_decay, fused=True)
    yield from train(model, train_batches, val_batches, optimizer, epochs, checkpoint=checkpoint)
