"""Figures of images: with their classes, leaks, filters and feature maps."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.axes import Axes
from torchvision.utils import make_grid

from cnnlesson.data import ImageSet
from cnnlesson.plots.figures import describe, lesson_style, new_axes, short_name


@lesson_style
def plot_images(image_set: ImageSet, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """The first images of a set, at most twelve, each with the name of its class."""
    image_set = image_set[torch.arange(min(12, len(image_set)))]
    if axes is None:
        rows = 1 if len(image_set) <= 6 else 2
        axes = plt.subplots(rows, 6, figsize=(9.6, 1.9 * rows), squeeze=False)[1].flat
    axes = list(axes)
    names = [image_set.classes[label] for label in image_set.labels]
    for ax in axes:
        ax.set_axis_off()
    for ax, image, name in zip(axes, image_set.images, names, strict=False):
        plot_image(ax, image, short_name(name))
    return describe(axes, "Images with the names of their classes", ", ".join(names))


@lesson_style
def plot_leaks(
    train: ImageSet, other: ImageSet, leaks: pd.DataFrame, axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """The first six pairs of images that are in both sets: training images above, those of the other set below.

    Args:
        leaks: from `cnnlesson.data.find_leaks`, with at least one pair.
        axes: twelve, six of them in the upper row.
    """
    axes = list(plt.subplots(2, 6, figsize=(9.6, 3.8))[1].flat if axes is None else axes)
    above, below = axes[: len(axes) // 2], axes[len(axes) // 2 :]
    for ax in axes:
        ax.set(xticks=[], yticks=[], frame_on=False)
    above[0].set_ylabel("training")
    below[0].set_ylabel("the other set")
    facts = []
    for pair, train_ax, other_ax in zip(leaks.head(6).itertuples(), above, below, strict=False):
        train_name = train.classes[train.labels[pair.train_index]]
        other_name = other.classes[other.labels[pair.other_index]]
        plot_image(train_ax, train.images[pair.train_index], short_name(train_name))
        plot_image(other_ax, other.images[pair.other_index], short_name(other_name))
        facts.append(
            f"{pair.kind}, distance {pair.distance:.2f}: training image {pair.train_index}, {train_name}, "
            f"and image {pair.other_index}, {other_name}"
        )
    alt = "Pairs of images that are in both sets: training images above, those of the other set below"
    return describe(axes, alt, "\n".join(facts))


def plot_image(ax: Axes, image: torch.Tensor, title: str) -> None:
    ax.imshow(image.cpu().permute(1, 2, 0).numpy())  # (H, W, 3)
    ax.set_title(title, fontsize=11)


@lesson_style
def plot_filters(weight: torch.Tensor, ax: Axes | None = None) -> Axes:
    """The filters of a first convolution, each as a small colour image whose values are stretched to the full range.

    Args:
        weight: (filters, 3, H, W).
    """
    filters, channels, height, width = weight.shape
    facts = f"{filters} filters of {channels}×{height}×{width}, values from {weight.min():.2g} to {weight.max():.2g}"
    return describe(_plot_tiles(weight, ax), "The filters of a first convolution as small colour images", facts)


@lesson_style
def plot_feature_maps(maps: torch.Tensor, ax: Axes | None = None) -> Axes:
    """The first 32 channels of a layer's output for one image, each stretched from dark (lowest) to light (highest).

    Args:
        maps: (channels, H, W).
    """
    maps = maps[:32]
    facts = "\n".join(f"channel {channel}: {map_text(values)}" for channel, values in enumerate(maps))
    alt = "The first channels of a layer's output for one image, from dark (low) to light (high)"
    return describe(_plot_tiles(maps[:, None], ax), alt, facts)


def map_text(values: torch.Tensor) -> str:
    """The range of an activation map, and the share of it that is above 0."""
    return f"from {values.min():.2g} to {values.max():.2g}, {(values > 0).float().mean():.0%} above 0"


def _plot_tiles(tiles: torch.Tensor, ax: Axes | None) -> Axes:
    """Tiles (N, C, H, W) in rows of 16, one pixel or more apart; a single channel is drawn from dark to light."""
    ax = ax or new_axes((9.6, 0.66 * -(-len(tiles) // 16) + 0.2))
    gap = max(1, tiles.shape[-1] // 12)
    tiles = tiles.detach().float().cpu()
    grid = make_grid(tiles, nrow=16, padding=gap, normalize=True, scale_each=True, pad_value=float("nan"))
    ax.imshow((grid[0] if tiles.shape[1] == 1 else grid.permute(1, 2, 0)).numpy())  # (height, width, 3)
    ax.set_axis_off()
    return ax
