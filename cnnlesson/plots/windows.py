"""Figures of what a window sees: one convolution on its grid, and a receptive field on its image."""

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

_COVERED, _UNCOVERED = "#D9ECF8", "#303030"
_MAX_LINES = 40  # cells per side; the lines of a finer grid would hide the cells


class _Windows(NamedTuple):
    """The windows of a convolution along one side of its input, in pixels; padding is below 0 or from `size` on."""

    size: int
    kernel: int
    stride: int
    padding: int

    @property
    def out_size(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    def start(self, index: int) -> int:
        return index * self.stride - self.padding

    def covered(self) -> np.ndarray:
        """Which pixels along the side any window covers: bool (size,)."""
        covered = np.zeros(self.size, dtype=bool)
        for index in range(self.out_size):
            covered[max(0, self.start(index)) : max(0, self.start(index) + self.kernel)] = True
        return covered


def _windows(size: int, kernel: int, stride: int, padding: int, position: int) -> tuple[_Windows, int, int]:
    """The windows, and the row and column of `position` in the output."""
    windows = _Windows(size, kernel, stride, padding)
    for name, value in windows._asdict().items():
        least = 0 if name == "padding" else 1
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if kernel > size + 2 * padding:
        room = f"{size} pixels with padding {padding} on each side" if padding else f"{size} pixels"
        raise ValueError(
            f"a kernel of {kernel} pixels does not fit into {room}: use a smaller kernel, a larger image or padding of "
            f"at least {-(-(kernel - size) // 2)}"
        )
    num_positions = windows.out_size**2
    if not 0 <= position < num_positions:
        raise ValueError(f"position must be from 0 to {num_positions - 1}, the last of the output, got {position}")
    return windows, *divmod(position, windows.out_size)


def convolution_text(size: int, kernel: int, stride: int, padding: int, position: int = 0) -> str:
    """The facts of `plot_convolution`: the output size and how it follows, uncovered pixels, what the window covers."""
    windows, row, column = _windows(size, kernel, stride, padding, position)
    out_size, covered = windows.out_size, windows.covered()
    exact = (size + 2 * padding - kernel) / stride
    rounded = "" if exact == out_size - 1 else f", rounded down from {exact + 1:.4g}"
    with_padding = f" + 2 · {padding}" if padding else ""
    if covered.all():
        coverage = "every pixel is covered by a window"
    else:
        number = size**2 - int(covered.sum()) ** 2
        are = "pixel is" if number == 1 else "pixels are"
        coverage = f"{number:,} of {size**2:,} {are} not covered by any window: rows and columns {_ranges(~covered)}"
    top, left = windows.start(row), windows.start(column)
    rows, columns = _inside(top, top + kernel, size), _inside(left, left + kernel, size)
    number = len(rows) * len(columns)
    inside = f"rows {_span(rows)} and columns {_span(columns)} of the input" if number else "no pixel of the input"
    beyond = f", and {kernel**2 - number} cells of padding" if number < kernel**2 else ""
    return (
        f"output {out_size}×{out_size}: ({size}{with_padding} - {kernel}) / {stride} + 1 = {out_size}{rounded}\n"
        f"{coverage}\n"
        f"position {position}, row {row} and column {column} of the output, sees {inside}{beyond}"
    )


@figure("The window of a convolution on the grid of its input, and its cell on that of the output", convolution_text)
def plot_convolution(
    size: int, kernel: int, stride: int, padding: int, position: int = 0, axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """One window of a convolution on its input, and the cell of the output that it computes.

    The input is on the left: its pixels, hatched padding around them, and the window. Pixels that no window covers
    are dark: of 224 pixels with a kernel of 11 and stride 4, the last row and column. Rows and columns count from 0.

    Args:
        size: height and width of the input in pixels.
        kernel, stride, padding: of the convolution, in pixels.
        position: of the window among all, counted from 0, row by row.

    Raises:
        ValueError: a value is too small, the kernel does not fit into the padded input, or there is no such position.
    """
    windows, row, column = _windows(size, kernel, stride, padding, position)
    axes = axes if axes is not None else plt.subplots(1, 2, figsize=WIDE)[1]
    before, after = axes
    out_size, covered = windows.out_size, windows.covered()

    if padding:
        corner, side = (-padding, -padding), size + 2 * padding
        style = {"facecolor": "white", "edgecolor": "#999999", "linewidth": 0.8, "hatch": "////"}
        before.add_patch(Rectangle(corner, side, side, **style))
    _plot_cells(before, size, padding)
    _plot_cells(after, out_size, padding=0)
    uncovered = [Rectangle((0, start), size, stop - start) for start, stop in _spans(~covered)]
    uncovered += [Rectangle((start, 0), stop - start, size) for start, stop in _spans(~covered)]
    before.add_collection(PatchCollection(uncovered, color=_UNCOVERED, linewidth=0, zorder=1))

    top, left = windows.start(row), windows.start(column)
    mark = {"edgecolor": MARK_COLOUR, "linewidth": 2.5, "zorder": 4, "clip_on": False}
    before.add_patch(Rectangle((left, top), kernel, kernel, facecolor=to_rgba(MARK_COLOUR, 0.35), **mark))
    after.add_patch(Rectangle((column, row), 1, 1, facecolor=MARK_COLOUR, **mark))
    start, stop = (left + kernel, top + kernel / 2), (column, row + 0.5)
    arrow = ConnectionPatch(start, stop, "data", "data", axesA=before, axesB=after)
    arrow.set(color=MARK_COLOUR, linewidth=1.5, zorder=5, arrowstyle="-|>", mutation_scale=14, in_layout=False)
    after.add_artist(arrow)

    before.set_title(f"input {size}×{size}" + (f", padding {padding}" if padding else ""))
    after.set_title(f"output {out_size}×{out_size}")
    if not covered.all():
        before.set_xlabel(f"dark: not covered, rows and columns {_ranges(~covered)}")
    padded = f"{size} + 2·{padding}" if padding else f"{size}"
    after.set_xlabel(f"⌊({padded} − {kernel}) / {stride}⌋ + 1 = {out_size}")
    return axes


def _plot_cells(ax: Axes, size: int, padding: int) -> None:
    """A square of `size` cells per side, with room for `padding` around it."""
    ax.add_patch(Rectangle((0, 0), size, size, facecolor=_COVERED, zorder=1))
    start, stop = -padding, size + padding
    if stop - start <= _MAX_LINES:
        across = [((start, at), (stop, at)) for at in range(start, stop + 1)]
        down = [((at, start), (at, stop)) for at in range(start, stop + 1)]
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
    """The facts of `plot_receptive_field`: the position and its value, the field, and its share of the image."""
    top, left, bottom, right = field
    height, width = image.shape[1:]
    share = len(_inside(top, bottom, height)) * len(_inside(left, right, width)) / (height * width)
    map_height, map_width = activation.shape
    return (
        f"row {row}, column {column} of the {map_height}×{map_width} map has the value {activation[row, column]:.3g}\n"
        f"its receptive field is {bottom - top}×{right - left} pixels, rows {top} to {bottom - 1} and columns {left} "
        f"to {right - 1}: {share:.1%} of the image"
    )


@figure("A receptive field on its image, and the activation map with its position", receptive_field_text)
def plot_receptive_field(
    image: torch.Tensor,
    field: tuple[int, int, int, int],
    activation: torch.Tensor,
    row: int,
    column: int,
    axes: Sequence[Axes] | None = None,
) -> Sequence[Axes]:
    """The pixels of an image that one position of an activation map depends on, and the map with that position.

    Args:
        image: uint8 (3, H, W), of the network's input size.
        field: (top, left, bottom, right) in pixels, from `cnnlesson.anatomy.receptive_field`; it may reach beyond the
            edge of the image.
        activation: one channel of a layer's output, (H', W').
        row, column: the position in it, counted from 0.

    Raises:
        ValueError: the map has no such position.
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
        for colour, line_width in (("white", 4.5), (MARK_COLOUR, 2.5)):  # visible on dark and on light pixels
            style = {"fill": False, "edgecolor": colour, "linewidth": line_width, "clip_on": False, "zorder": 4}
            ax.add_patch(Rectangle(corner, *sides, **style))
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
    return edges.reshape(-1, 2).tolist()


def _ranges(marked: np.ndarray) -> str:
    """The runs of True in `marked` (n,) as text: "223" or "0 to 2, 9", and the first three of more than three."""
    spans = [_span(range(*span)) for span in _spans(marked)]
    return ", ".join(spans[:3]) + (" and so on" if len(spans) > 3 else "")
