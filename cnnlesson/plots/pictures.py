"""Figures of images: with their classes, leaks, filters and feature maps."""

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.axes import Axes
from torchvision.utils import make_grid

from cnnlesson.data import ImageSet
from cnnlesson.plots.figures import figure, new_axes, short_name

_MAX_MAPS = 32


def images_text(image_set: ImageSet) -> str:
    """The facts of `plot_images`: the classes of the images, in order."""
    return ", ".join(image_set.classes[label] for label in image_set.labels[:12])


@figure("Images with the names of their classes", images_text)
def plot_images(image_set: ImageSet, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """The first images of a set, at most twelve, each with the name of its class."""
    if axes is None:
        rows = 1 if len(image_set) <= 6 else 2
        axes = plt.subplots(rows, 6, figsize=(9.6, 1.9 * rows), squeeze=False)[1].flat
    axes = _bare(axes)
    for index, ax in enumerate(axes[: len(image_set)]):
        _plot_image(ax, image_set, index)
    return axes


def leaks_text(train: ImageSet, other: ImageSet, leaks: pd.DataFrame) -> str:
    """The facts of `plot_leaks`, one line per pair."""
    return "\n".join(
        f"{pair.kind}, distance {pair.distance:.2f}: training image {pair.train_index}, "
        f"{train.classes[train.labels[pair.train_index]]}, and image {pair.other_index}, "
        f"{other.classes[other.labels[pair.other_index]]}"
        for pair in leaks.head(6).itertuples()
    )


@figure("Pairs of images that are in both sets: training images above, those of the other set below", leaks_text)
def plot_leaks(
    train: ImageSet, other: ImageSet, leaks: pd.DataFrame, axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """The first six pairs of images that are in both sets: training images above, those of the other set below.

    Args:
        leaks: from `cnnlesson.data.find_leaks`, with at least one pair.
        axes: twelve, six of them in the upper row.
    """
    if axes is None:
        axes = plt.subplots(2, 6, figsize=(9.6, 3.8))[1].flat
    axes = _bare(axes)
    above, below = axes[: len(axes) // 2], axes[len(axes) // 2 :]
    above[0].set_ylabel("training")
    below[0].set_ylabel("the other set")
    for pair, train_ax, other_ax in zip(leaks.head(6).itertuples(), above, below, strict=False):
        _plot_image(train_ax, train, pair.train_index)
        _plot_image(other_ax, other, pair.other_index)
    return axes


def _bare(axes: Iterable[Axes]) -> list[Axes]:
    axes = list(axes)
    for ax in axes:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
    return axes


def _plot_image(ax: Axes, image_set: ImageSet, index: int) -> None:
    ax.imshow(image_set.images[index].cpu().permute(1, 2, 0).numpy())  # (H, W, 3)
    ax.set_title(short_name(image_set.classes[image_set.labels[index]]), fontsize=11)


def filters_text(weight: torch.Tensor) -> str:
    """The facts of `plot_filters`: the number of filters, and the range of their values."""
    filters, channels, height, width = weight.shape
    return f"{filters} filters of {channels}×{height}×{width}, values from {weight.min():.2g} to {weight.max():.2g}"


@figure("The filters of a first convolution as small colour images", filters_text)
def plot_filters(weight: torch.Tensor, ax: Axes | None = None) -> Axes:
    """The filters of a first convolution, each as a small colour image whose values are stretched to the full range.

    Args:
        weight: (filters, 3, H, W).
    """
    return _plot_tiles(weight, None, ax)


def feature_maps_text(maps: torch.Tensor) -> str:
    """The facts of `plot_feature_maps`, one line per channel."""
    return "\n".join(f"channel {channel}: {map_text(values)}" for channel, values in enumerate(maps[:_MAX_MAPS]))


def map_text(values: torch.Tensor) -> str:
    """The range of an activation map, and the share of it that is above 0."""
    return f"from {values.min():.2g} to {values.max():.2g}, {(values > 0).float().mean():.0%} above 0"


@figure("The first channels of a layer's output for one image, from dark (low) to light (high)", feature_maps_text)
def plot_feature_maps(maps: torch.Tensor, ax: Axes | None = None) -> Axes:
    """The first 32 channels of a layer's output for one image, each stretched from dark (lowest) to light (highest).

    Args:
        maps: (channels, H, W).
    """
    return _plot_tiles(maps[:_MAX_MAPS, None], "cividis", ax)


def _plot_tiles(tiles: torch.Tensor, colours: str | None, ax: Axes | None) -> Axes:
    """Tiles (N, C, H, W) in rows of 16, one pixel or more apart."""
    ax = ax or new_axes((9.6, 0.66 * -(-len(tiles) // 16) + 0.2))
    gap = max(1, tiles.shape[-1] // 12)
    tiles = tiles.detach().float().cpu()
    grid = make_grid(tiles, nrow=16, padding=gap, normalize=True, scale_each=True, pad_value=float("nan"))
    ax.imshow((grid.permute(1, 2, 0) if colours is None else grid[0]).numpy(), cmap=colours)  # (height, width, 3)
    ax.axis("off")
    return ax
