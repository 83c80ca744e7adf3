"""The size of activations and gradients in plain and residual networks of any depth, before training."""

import functools

import pandas as pd
import torch

from cnnlesson.models import cifar_resnet
from cnnlesson.plots import blank, description, plot_signals
from cnnlesson.signals import activation_sizes, gradient_norms
from cnnlesson.widgets.explorer import Choice, Explorer, Tick


def explore_depth(images: torch.Tensor, labels: torch.Tensor, num_classes: int) -> Explorer:
    """The size of activations and gradients, layer by layer, in new networks of `cifar_resnet`.

    Args:
        images, labels: one batch, (N, 3, 32, 32) and (N,), on any device; the networks are built there.
        num_classes: the number of classes of the labels.
    """

    @functools.cache
    def signals(depth: int, network: str) -> pd.DataFrame:
        with torch.random.fork_rng(devices=[]):  # leaves the notebook's own random numbers as they are
            torch.manual_seed(0)
            model = cifar_resnet(depth, num_classes, residual=network == "residual")
        model = model.to(images.device)
        sizes = {"activation": activation_sizes(model, images), "gradient": gradient_norms(model, images, labels)}
        return pd.DataFrame(sizes).assign(network=network)

    controls = {
        "depth": Choice("depth (layers)", [8, 14, 20, 32, 44, 56], value=20),
        "plain": Tick("plain", True),
        "residual": Tick("residual", True),
    }

    def draw(depth: int, **ticked: bool) -> tuple:
        networks = [network for network, is_shown in ticked.items() if is_shown]
        if not networks:
            raise ValueError("nothing to draw: tick plain, residual or both")
        table = pd.concat([signals(depth, network) for network in networks])
        axes = plot_signals(table, blank(1, 2, (9.6, 3.6)))
        return axes, description(axes).text

    return Explorer(controls, draw)
