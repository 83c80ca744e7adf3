"""Figures of the signals in networks: how large activations and gradients are, layer by layer."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from cnnlesson.plots.figures import PLAIN_COLOUR, RESIDUAL_COLOUR, figure, label_ends, label_log_axis

_COLOURS = {"plain": PLAIN_COLOUR, "residual": RESIDUAL_COLOUR}


def signals_text(signals: pd.DataFrame) -> str:
    """The facts of `plot_signals`, two lines a network."""
    lines = []
    for network, sizes in signals.groupby("network", sort=False):
        for column, words in (("activation", "activations"), ("gradient", "gradients")):
            lines.append(f"{network}, {len(sizes)} layers, {words}: {sizes_in_words(sizes[column])}")
    return "\n".join(lines)


def sizes_in_words(sizes: pd.Series) -> str:
    """The first and the last of the layers' sizes, and their range."""
    return (
        f"first layer {sizes.iloc[0]:.2g}, last layer {sizes.iloc[-1]:.2g}, smallest {sizes.min():.2g}, "
        f"largest {sizes.max():.2g}"
    )


@figure("The size of the activations and of the gradients in each layer, from the images to the logits", signals_text)
def plot_signals(signals: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """How large activations (left) and gradients (right) are in each layer of one or more networks.

    Args:
        signals: a row a network and layer, from the images on, with the columns network ("plain" or "residual"),
            activation and gradient, such as `cnnlesson.signals.activation_sizes` and `gradient_norms` give them.
        axes: two, side by side.
    """
    axes = axes if axes is not None else plt.subplots(1, 2, figsize=(9.6, 3.6))[1]
    titles = {"activation": "size of the activations", "gradient": "norm of the gradient"}
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        for network, sizes in signals.groupby("network", sort=False):
            ax.semilogy(range(1, len(sizes) + 1), sizes[column], ".-", color=_COLOURS[network], label=network)
        ax.set_title(title)
        ax.set_xlabel("layer, from the images on")
        ax.xaxis.get_major_locator().set_params(integer=True)
        label_log_axis(ax.yaxis)
        label_ends(ax)
    return axes
