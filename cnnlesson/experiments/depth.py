"""The effect of depth on plain and residual networks for 32×32 images, after section 4.2 of He et al. (2015)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn

from cnnlesson.data import Batches, TrainTest
from cnnlesson.experiments.trial import MOMENTUM
from cnnlesson.models import cifar_resnet
from cnnlesson.models.resnet import cifar_blocks_per_stage
from cnnlesson.signals import gradient_norms
from cnnlesson.training import train

# Test error of residual networks on CIFAR-10, by depth, from Table 6 of the paper.
PUBLISHED_TEST_ERROR = {20: 0.0875, 32: 0.0751, 44: 0.0717, 56: 0.0697, 110: 0.0643}


@dataclass(frozen=True)
class Network:
    """One network of the experiment."""

    depth: int
    residual: bool
    seed: int  # of the initial weights, the order of the images and their augmentation

    def __str__(self) -> str:
        return f"{'residual' if self.residual else 'plain'}-{self.depth}-seed-{self.seed}"


@dataclass(frozen=True)
class Recipe:
    """How every network of the experiment is trained.

    This is the paper's recipe with another learning rate schedule. Here the learning rate rises to `lr` and falls to 0
    in one cycle, which can be short. The paper trains for 32,000 steps at 0.1, then for 32,000 more at 0.01 and 0.001.
    """

    epochs: int
    batch_size: int
    lr: float  # the maximum
    weight_decay: float


@dataclass(frozen=True, eq=False)
class DepthEpoch:
    """The results of one pass over the training images. Losses are as in `cnnlesson.training.Epoch`."""

    network: Network
    model: nn.Module  # in its current state; the next epoch continues to train it
    number: int  # 1-based
    train_error: float  # fraction of the images, from 0 to 1, measured while the weights change
    test_error: float
    train_loss: float
    test_loss: float
    learning_rate: float  # at the first step
    gradient_norms: dict[str, float]  # before the first step: see `cnnlesson.signals.gradient_norms`


def networks(depths: Sequence[int], seeds: Sequence[int]) -> list[Network]:
    """The plain and the residual network of each depth and seed, from the shallowest to the deepest.

    Raises:
        ValueError: a depth is not 6n + 2, or a depth or seed is listed twice.
    """
    for name, values in (("depth", depths), ("seed", seeds)):
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"{name} {value} is listed twice: list each {name} once")
    for depth in depths:
        cifar_blocks_per_stage(depth)  # raises here, before any network is trained
    return [Network(depth, residual, seed) for depth, seed, residual in product(sorted(depths), seeds, (False, True))]


def depth_experiment(
    data: TrainTest, networks: Sequence[Network], recipe: Recipe, device: torch.device | str | None = None
) -> Iterator[DepthEpoch]:
    """Train each of `networks` from scratch, and yield a `DepthEpoch` after each pass over the training images.

    Training images are flipped and shifted at random. There is no validation set, because nothing is selected by its
    error. A loss that is not finite ends the training of a network, as in `cnnlesson.training.train`.

    Args:
        data: images of 32×32 pixels, such as those of `cnnlesson.data.cifar10`.
        networks: for example `networks(depths=(20, 56), seeds=(0,))`.
        recipe: the same for all networks, so that you can compare them.
        device: such as "cpu" or "cuda"; None uses the GPU if there is one.

    Raises:
        ValueError: the images have another size.
    """
    height, width = data.train.images.shape[2:]
    if (height, width) != (32, 32):
        raise ValueError(
            f"the depth experiment expects images of 32×32 pixels, such as CIFAR-10's, got {height}×{width}"
        )
    num_classes = len(data.train.classes)
    test_batches = Batches(data.test, min(500, len(data.test)), 32, device=device)
    for network in networks:
        train_batches = Batches(data.train, recipe.batch_size, 32, seed=network.seed, augment=True, device=device)
        probe = next(iter(Batches(data.train, min(256, len(data.train)), 32, seed=network.seed, device=device)))
        torch.manual_seed(network.seed)
        model = cifar_resnet(network.depth, num_classes, network.residual).to(train_batches.device)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=recipe.lr, momentum=MOMENTUM, weight_decay=recipe.weight_decay, fused=True
        )
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=recipe.lr, total_steps=recipe.epochs * len(train_batches), cycle_momentum=False
        )
        norms = gradient_norms(model, *probe)
        for epoch in train(model, train_batches, test_batches, optimizer, recipe.epochs, scheduler):
            yield DepthEpoch(
                network=network,
                model=model,
                number=epoch.number,
                train_error=1 - epoch.train_accuracy,
                test_error=1 - epoch.val_accuracy,
                train_loss=epoch.train_loss,
                test_loss=epoch.val_loss,
                learning_rate=epoch.learning_rate,
                gradient_norms=norms,
            )
            norms = gradient_norms(model, *probe)
