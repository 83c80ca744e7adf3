"""Figures of what a window sees: one convolution on its grid, and a receptive field on the image."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import ConnectionPatch, Rectangle

from cnnlesson.plots.figures import MARK_COLOUR, WIDE, figure

_SEEN, _UNSEEN = "#D9ECF8", "#303030"
_MOST_LINES = 40  # cells a side: of more, the lines of the grid would hide the cells


class _Convolution(NamedTuple):
    """Where the windows of a convolution lie along one side, in pixels of the image; padding is below 0 or at size."""

    size: int
    kernel: int
    stride: int
    padding: int

    @property
    def out_size(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    def start(self, place: int) -> int:
        return place * self.stride - self.padding

    def is_seen(self) -> np.ndarray:
        """For each pixel along the side whether any window covers it, (size,)."""
        seen = np.zeros(self.size, dtype=bool)
        for place in range(self.out_size):
            seen[max(0, self.start(place)) : max(0, self.start(place) + self.kernel)] = True
        return seen


def _convolution(size: int, kernel: int, stride: int, padding: int, place: int) -> tuple[_Convolution, int, int]:
    """The convolution, and the row and column of `place` in its output; ValueError where there are none."""
    for name, value, least in (
        ("size", size, 1),
        ("kernel", kernel, 1),
        ("stride", stride, 1),
        ("padding", padding, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if kernel > size + 2 * padding:
        room = f"{size} with padding {padding} on each side" if padding else f"{size}"
        raise ValueError(
            f"a kernel of {kernel} pixels does not fit into {room}: take a smaller kernel, a larger image or "
            f"padding of at least {-(-(kernel - size) // 2)}"
        )
    convolution = _Convolution(size, kernel, stride, padding)
    num_places = convolution.out_size**2
    if not 0 <= place < num_places:
        raise ValueError(f"the output has {num_places} places, 0 to {num_places - 1}: there is no place {place}")
    return convolution, *divmod(place, convolution.out_size)


def convolution_text(size: int, kernel: int, stride: int, padding: int, place: int = 0) -> str:
    """The facts of `plot_convolution`: the output's size with its arithmetic, unseen pixels, what the place sees."""
    convolution, row, column = _convolution(size, kernel, stride, padding, place)
    out_size = convolution.out_size
    exact = (size + 2 * padding - kernel) / stride
    rounded = "" if exact == out_size - 1 else f", rounded down from {exact + 1:.4g}"
    with_padding = f" + 2 · {padding}" if padding else ""
    seen = convolution.is_seen()
    if seen.all():
        coverage = "every pixel is looked at"
    else:
        number = size**2 - int(seen.sum()) ** 2
        are = "pixel is" if number == 1 else "pixels are"
        coverage = f"{number:,} of {size**2:,} {are} never looked at: rows and columns {_ranges(~seen)}"
    top, left = convolution.start(row), convolution.start(column)
    rows, columns = _inside(top, top + kernel, size), _inside(left, left + kernel, size)
    number = len(rows) * len(columns)
    inside = f"rows {_span(rows)} and columns {_span(columns)} of the input" if number else "no pixel of the input"
    beyond = kernel**2 - number
    return (
        f"output {out_size}×{out_size}: ({size}{with_padding} - {kernel}) / {stride} + 1 = {out_size}{rounded}\n"
        f"{coverage}\n"
        f"place {place}, row {row} and column {column} of the output, sees {inside}"
        + (f", and {beyond} cells of padding" if beyond else "")
    )


@figure("A convolution's window on the grid of its input, beside the grid of its output", convolution_text)
def plot_convolution(
    size: int, kernel: int, stride: int, padding: int, place: int = 0, axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """One window of a convolution on its input, and the cell of the output that it makes.

    The input is on the left: its pixels, hatched padding around them, and the window. Pixels that no window covers
    are dark: of 224 pixels with a kernel of 11 and stride 4 the last row and column. Rows and columns count from 0.

    Args:
        size: height and width of the input in pixels.
        kernel, stride, padding: of the convolution, in pixels.
        place: of the window among all, counted from 0, row by row.
        axes: two, side by side.

    Raises:
        ValueError: a value is too small, the kernel does not fit into the padded input, or there is no such place.
    """
    convolution, row, column = _convolution(size, kernel, stride, padding, place)
    axes = axes if axes is not None else plt.subplots(1, 2, figsize=WIDE)[1]
    before, after = axes
    out_size = convolution.out_size
    seen = convolution.is_seen()

    whole = {"facecolor": "white", "edgecolor": "#999999", "linewidth": 0.8}
    if padding:
        corner, side = (-padding, -padding), size + 2 * padding
        before.add_patch(Rectangle(corner, side, side, hatch="////", **whole))
    _grid_of_cells(before, size, padding)
    _grid_of_cells(after, out_size, padding=0)
    unseen = [Rectangle((0, start), size, stop - start) for start, stop in _spans(~seen)]
    unseen += [Rectangle((start, 0), stop - start, size) for start, stop in _spans(~seen)]
    before.add_collection(PatchCollection(unseen, color=_UNSEEN, linewidth=0, zorder=1))

    top, left = convolution.start(row), convolution.start(column)
    mark = {"edgecolor": MARK_COLOUR, "linewidth": 2.5, "zorder": 4, "clip_on": False}
    before.add_patch(Rectangle((left, top), kernel, kernel, facecolor=to_rgba(MARK_COLOUR, 0.35), **mark))
    after.add_patch(Rectangle((column, row), 1, 1, facecolor=MARK_COLOUR, **mark))
    line = ConnectionPatch(
        (left + kernel, top + kernel / 2), (column, row + 0.5), "data", "data", axesA=before, axesB=after
    )
    line.set(color=MARK_COLOUR, linewidth=1.5, zorder=5, arrowstyle="-|>", mutation_scale=14, in_layout=False)
    after.add_artist(line)

    with_padding = f", padding {padding}" if padding else ""
    before.set_title(f"input {size}×{size}{with_padding}")
    after.set_title(f"output {out_size}×{out_size}")
    if not seen.all():
        before.set_xlabel(f"dark: never looked at, rows and columns {_ranges(~seen)}")
    sum_of = f"{size} + 2·{padding}" if padding else f"{size}"
    after.set_xlabel(f"⌊({sum_of} − {kernel}) / {stride}⌋ + 1 = {out_size}")
    return axes


def _grid_of_cells(ax: Axes, size: int, padding: int) -> None:
    """A square of `size` cells a side, on axes that leave room for `padding` around it."""
    ax.add_patch(Rectangle((0, 0), size, size, facecolor=_SEEN, zorder=1))
    start, stop = -padding, size + padding
    if stop - start <= _MOST_LINES:
        lines = range(start, stop + 1)
        across = [((start, at), (stop, at)) for at in lines]
        down = [((at, start), (at, stop)) for at in lines]
        ax.add_collection(LineCollection(across + down, colors="white", linewidths=1, zorder=2))
    ax.set_xlim(start, stop)
    ax.set_ylim(stop, start)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def receptive_field_text(
    image: torch.Tensor, field: tuple[int, int, int, int], activation: torch.Tensor, row: int, column: int
) -> str:
    """The facts of `plot_receptive_field`: the place and its value, the field, and how much of the image it is."""
    top, left, bottom, right = field
    height, width = image.shape[1:]
    rows, columns = _inside(top, bottom, height), _inside(left, right, width)
    share = len(rows) * len(columns) / (height * width)
    map_height, map_width = activation.shape
    return (
        f"row {row}, column {column} of the {map_height}×{map_width} map has the value {activation[row, column]:.3g}\n"
        f"its receptive field is {bottom - top}×{right - left} pixels, rows {top} to {bottom - 1} and columns {left} "
        f"to {right - 1}: {share:.1%} of the image"
    )


@figure("A receptive field on its image, beside the activation map with the place it belongs to", receptive_field_text)
def plot_receptive_field(
    image: torch.Tensor,
    field: tuple[int, int, int, int],
    activation: torch.Tensor,
    row: int,
    column: int,
    axes: Sequence[Axes] | None = None,
) -> Sequence[Axes]:
    """The pixels of an image that one place of an activation map depends on, and the map with that place.

    Args:
        image: uint8 (3, H, W), of the size in which the network gets it.
        field: (top, left, bottom, right) in pixels, from `cnnlesson.anatomy.receptive_field`; it may reach beyond the
            edge of the image.
        activation: one channel of a layer's output, (H', W').
        row, column: the place in it, counted from 0.
        axes: two, side by side.

    Raises:
        ValueError: there is no such place in the map.
    """
    activation = activation.detach().float().cpu()
    map_height, map_width = activation.shape
    if not (0 <= row < map_height and 0 <= column < map_width):
        raise ValueError(
            f"the map has {map_height} rows and {map_width} columns, counted from 0: "
            f"there is no row {row}, column {column}"
        )
    axes = axes if axes is not None else plt.subplots(1, 2, figsize=WIDE)[1]
    before, after = axes
    top, left, bottom, right = field
    height, width = image.shape[1:]
    before.imshow(image.cpu().permute(1, 2, 0).numpy(), extent=(0, width, height, 0))  # (H, W, 3)
    before.set_xlim(min(left, 0), max(right, width))
    before.set_ylim(max(bottom, height), min(top, 0))
    shown = after.imshow(activation.numpy(), cmap="cividis", extent=(0, map_width, map_height, 0))
    for ax, corner, sides in (
        (before, (left, top), (right - left, bottom - top)),
        (after, (column, row), (1, 1)),
    ):
        for colour, line_width in (("white", 4.5), (MARK_COLOUR, 2.5)):  # seen on dark and on light alike
            ax.add_patch(
                Rectangle(corner, *sides, fill=False, edgecolor=colour, linewidth=line_width, clip_on=False, zorder=4)
            )
        ax.axis("off")
    before.set_title(f"receptive field: {bottom - top}×{right - left} of {height}×{width} pixels")
    after.set_title(f"row {row}, column {column} of {map_height}×{map_width}: {activation[row, column]:.3g}")
    after.figure.colorbar(shown, ax=after, label="activation", shrink=0.9)
    return axes


def _inside(start: int, stop: int, size: int) -> range:
    return range(max(0, start), min(stop, size))


def _span(places: range) -> str:
    return f"{places[0]}" if len(places) == 1 else f"{places[0]} to {places[-1]}"


def _spans(marked: np.ndarray) -> list[tuple[int, int]]:
    """The (start, stop) of each run of True in `marked` (n,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]])))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _ranges(marked: np.ndarray) -> str:
    """Where `marked` (n,) is True, in words: "223", "0 to 2, 9", and of more than three runs the first three."""
    spans = [_span(range(*span)) for span in _spans(marked)]
    return ", ".join(spans[:3]) + (" and so on" if len(spans) > 3 else "")
