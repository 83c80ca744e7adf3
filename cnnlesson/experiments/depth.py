"""What depth does: plain and residual networks on 32×32 images, after section 4.2 of He et al. (2015)."""

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

# Test error of residual networks on CIFAR-10 by depth, from table 6 of the paper.
PUBLISHED_TEST_ERROR = {20: 0.0875, 32: 0.0751, 44: 0.0717, 56: 0.0697, 110: 0.0643}


@dataclass(frozen=True)
class Network:
    """One network of the experiment."""

    depth: int
    residual: bool
    seed: int  # of the first weights, the order of the images and their augmentation

    def __str__(self) -> str:
        return f"{'residual' if self.residual else 'plain'}-{self.depth}-seed-{self.seed}"


@dataclass(frozen=True)
class Recipe:
    """How every network of the experiment is trained.

    The paper's recipe, but for the learning rate: it rises to `lr` and falls to 0 in one cycle of any length, where
    the paper's stays at 0.1 for 32,000 steps, and needs 32,000 more at a tenth and a hundredth of it.
    """

    epochs: int
    batch_size: int
    lr: float  # the highest
    weight_decay: float


@dataclass(frozen=True, eq=False)
class DepthEpoch:
    """What one pass over the training images gave; losses as in `cnnlesson.training.Epoch`."""

    network: Network
    model: nn.Module  # as it is now; it goes on training when the next epoch is asked for
    number: int  # 1 for the first
    train_error: float  # share of images between 0 and 1, taken while the weights change
    test_error: float
    train_loss: float
    test_loss: float
    learning_rate: float  # of the first step
    gradient_norms: dict[str, float]  # before the first step: see `cnnlesson.signals.gradient_norms`


def networks(depths: Sequence[int], seeds: Sequence[int]) -> list[Network]:
    """The plain and the residual network of every depth and seed, the quickest to train first.

    Raises:
        ValueError: a depth is not 6n + 2.
    """
    for depth in depths:
        cifar_blocks_per_stage(depth)  # raises: better now than when the other depths are trained
    return [Network(depth, residual, seed) for depth, seed, residual in product(sorted(depths), seeds, (False, True))]


def depth_experiment(
    data: TrainTest, networks: Sequence[Network], recipe: Recipe, device: torch.device | str | None = None
) -> Iterator[DepthEpoch]:
    """Train each of `networks` from scratch, and yield a `DepthEpoch` after each pass over the training images.

    Training images are flipped and shifted at random. The test images decide nothing: there is no choice to make.
    A loss that is not finite ends a network's training, as in `cnnlesson.training.train`.

    Args:
        data: images of 32×32 pixels, such as `cnnlesson.data.sets` gives.
        networks: for example `networks(depths=(20, 56), seeds=(0,))`.
        recipe: the same for all, so that they can be compared.
        device: such as "cpu" or "cuda"; None takes the GPU where there is one.

    Raises:
        ValueError: the images are of another size.
    """
    height, width = data.train.images.shape[2:]
    if (height, width) != (32, 32):
        raise ValueError(f"the depth experiment takes images of 32×32 pixels, as CIFAR-10's, got {height}×{width}")
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
