"""How large activations and gradients are in plain and residual networks of any depth, before training."""

import functools

import pandas as pd
import torch

from cnnlesson.models import cifar_resnet
from cnnlesson.plots import blank, plot_signals, signals_text
from cnnlesson.signals import activation_sizes, gradient_norms
from cnnlesson.widgets.explorer import Choice, Explorer, Tick

DEPTHS = (8, 14, 20, 32, 44, 56)


def explore_depth(images: torch.Tensor, labels: torch.Tensor, num_classes: int) -> Explorer:
    """The size of activations and gradients, layer by layer, in new networks of `cifar_resnet`.

    Args:
        images, labels: one batch, (N, 3, 32, 32) and (N,), on any device; the networks are built there.
        num_classes: how many classes the labels tell apart.
    """

    @functools.cache  # what was looked at once is there at once
    def signals(depth: int, residual: bool) -> pd.DataFrame:
        with torch.random.fork_rng(devices=[]):  # the notebook's own random numbers stay as they are
            torch.manual_seed(0)
            model = cifar_resnet(depth, num_classes, residual)
        model = model.to(images.device)
        activations, gradients = activation_sizes(model, images), gradient_norms(model, images, labels)
        network = "residual" if residual else "plain"
        return pd.DataFrame({"activation": activations, "gradient": gradients}).assign(network=network)

    controls = {
        "depth": Choice("depth (layers)", DEPTHS, value=20),
        "plain": Tick("plain", True),
        "residual": Tick("residual", True),
    }

    def draw(depth: int, plain: bool, residual: bool) -> tuple:
        kinds = [kind for kind, is_shown in ((False, plain), (True, residual)) if is_shown]
        if not kinds:
            raise ValueError("nothing to draw: tick plain, residual or both")
        table = pd.concat([signals(depth, kind) for kind in kinds])
        return plot_signals(table, blank(1, 2, (9.6, 3.6))), signals_text(table)

    return Explorer(controls, draw)
