"""A trial of a small network, quick enough to run many times."""

import dataclasses
import functools
import time

import torch
from torch import nn

from cnnlesson.data import Batches, ImageSet
from cnnlesson.training import train

GRID = {"lr": [0.1, 0.01, 0.001], "batch_size": [8, 15], "weight_decay": [0.0005]}


def small_images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 3
    images = torch.randint(0, 200, (30, 3, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(30), labels] += 50
    return ImageSet(images, labels, ("red", "green", "blue"))


def run(lr, batch_size, weight_decay, checkpoint, epochs=3, pause=0.0, seed=0):
    """`pause`: seconds more for each epoch."""
    torch.manual_seed(seed)
    images = small_images()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4 * 36, 3))
    batches = Batches(images, batch_size, image_size=8, seed=seed, augment=True, device="cpu")
    val_batches = Batches(images, 30, image_size=8, device="cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay)
    for epoch in train(model, batches, val_batches, optimizer, epochs, checkpoint=checkpoint):
        time.sleep(pause)
        yield dataclasses.replace(epoch, seconds=0.0, images_per_second=0.0)  # all that differs between two runs


slow_run = functools.partial(run, epochs=4, pause=0.1)
