"""Figures of what a window sees: one convolution on its grid, and a receptive field on its image."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.patches import ConnectionPatch, Rectangle

from cnnlesson.plots.figures import MARK_COLOUR, WIDE, describe, lesson_style

_COLOURS = ListedColormap(["#303030", "#D9ECF8"])  # of pixels that no window covers, and of all others
_MAX_LINES = 40  # cells per side; the lines of a finer grid would hide the cells


@lesson_style
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
    _check_window(size, kernel, stride, padding)
    out_size = (size + 2 * padding - kernel) // stride + 1
    if not 0 <= position < out_size**2:
        raise ValueError(f"position must be from 0 to {out_size**2 - 1}, the last of the output, got {position}")
    starts = np.arange(out_size) * stride - padding  # of the windows along one side; padding is below 0 or beyond size
    covered = np.isin(np.arange(size), np.add.outer(starts, np.arange(kernel)))
    row, column = divmod(position, out_size)
    top, left = int(starts[row]), int(starts[column])
    axes = axes if axes is not None else plt.subplots(1, 2, figsize=WIDE)[1]
    before, after = axes

    before.patch.set(hatch="////" if padding else "", edgecolor="#999999")
    _plot_cells(before, np.pad(np.outer(covered, covered).astype(float), padding, constant_values=np.nan), -padding)
    _plot_cells(after, np.ones((out_size, out_size)), 0)
    mark = {"edgecolor": MARK_COLOUR, "linewidth": 2.5, "zorder": 4, "clip_on": False}
    before.add_patch(Rectangle((left, top), kernel, kernel, facecolor=to_rgba(MARK_COLOUR, 0.35), **mark))
    after.add_patch(Rectangle((column, row), 1, 1, facecolor=MARK_COLOUR, **mark))
    start, stop = (left + kernel, top + kernel / 2), (column, row + 0.5)
    arrow = ConnectionPatch(start, stop, "data", "data", axesA=before, axesB=after)
    arrow.set(color=MARK_COLOUR, linewidth=1.5, zorder=5, arrowstyle="-|>", mutation_scale=14, in_layout=False)
    after.add_artist(arrow)

    before.set_title(f"input {size}×{size}" + (f", padding {padding}" if padding else ""))
    after.set_title(f"output {out_size}×{out_size}")
    uncovered = _ranges(np.flatnonzero(~covered))
    if uncovered:
        before.set_xlabel(f"dark: not covered, rows and columns {uncovered}")
    padded = f"{size} + 2·{padding}" if padding else f"{size}"
    after.set_xlabel(f"⌊({padded} − {kernel}) / {stride}⌋ + 1 = {out_size}")

    exact = (size + 2 * padding - kernel) / stride + 1
    rounded = "" if exact == out_size else f", rounded down from {exact:.4g}"
    coverage = "every pixel is covered by a window"
    if uncovered:
        number = size**2 - int(covered.sum()) ** 2
        coverage = f"not covered by any window: {number:,} of {size**2:,} pixels, rows and columns {uncovered}"
    rows, columns = _inside(top, top + kernel, size), _inside(left, left + kernel, size)
    number = len(rows) * len(columns)
    seen = f"rows {_span(rows)} and columns {_span(columns)} of the input" if number else "no pixel of the input"
    beyond = f", and {kernel**2 - number} cells of padding" if number < kernel**2 else ""
    facts = (
        f"output {out_size}×{out_size}: ({padded} - {kernel}) / {stride} + 1 = {out_size}{rounded}\n"
        f"{coverage}\n"
        f"position {position}, row {row} and column {column} of the output, sees {seen}{beyond}"
    )
    alt = "The window of a convolution on the grid of its input, and its cell on that of the output"
    return describe(axes, alt, facts)


def _check_window(size: int, kernel: int, stride: int, padding: int) -> None:
    for name, value in {"size": size, "kernel": kernel, "stride": stride, "padding": padding}.items():
        least = 0 if name == "padding" else 1
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if kernel > size + 2 * padding:
        room = f"{size} pixels with padding {padding} on each side" if padding else f"{size} pixels"
        raise ValueError(
            f"a kernel of {kernel} pixels does not fit into {room}: use a smaller kernel, a larger image or padding of "
            f"at least {-(-(kernel - size) // 2)}"
        )


def _plot_cells(ax: Axes, cells: np.ndarray, start: int) -> None:
    """A square of cells: 1 for a covered pixel, 0 for another, NaN for padding. Rows and columns count from `start`."""
    edges = np.arange(len(cells) + 1) + start
    lines = "white" if len(cells) <= _MAX_LINES else "none"
    ax.pcolormesh(edges, edges, cells, cmap=_COLOURS, vmin=0, vmax=1, edgecolors=lines, linewidth=0.5)
    ax.set(aspect="equal", xlim=edges[[0, -1]], ylim=edges[[-1, 0]], xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


@lesson_style
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
    for ax, corner, sides in ((before, (left, top), (right - left, bottom - top)), (after, (column, row), (1, 1))):
        for colour, line_width in (("white", 4.5), (MARK_COLOUR, 2.5)):  # visible on dark and on light pixels
            style = {"fill": False, "edgecolor": colour, "linewidth": line_width, "clip_on": False, "zorder": 4}
            ax.add_patch(Rectangle(corner, *sides, **style))
        ax.axis("off")
    before.set_title(f"receptive field: {bottom - top}×{right - left} of {height}×{width} pixels")
    after.set_title(f"row {row}, column {column} of {map_height}×{map_width}: {activation[row, column]:.3g}")
    after.figure.colorbar(shown, ax=after, label="activation", shrink=0.9)
    share = len(_inside(top, bottom, height)) * len(_inside(left, right, width)) / (height * width)
    facts = (
        f"row {row}, column {column} of the {map_height}×{map_width} map has the value {activation[row, column]:.3g}\n"
        f"its receptive field is {bottom - top}×{right - left} pixels, rows {top} to {bottom - 1} and columns {left} "
        f"to {right - 1}: {share:.1%} of the image"
    )
    return describe(axes, "A receptive field on its image, and the activation map with its position", facts)


def _inside(start: int, stop: int, size: int) -> range:
    return range(max(0, start), min(stop, size))


def _span(places: Sequence[int]) -> str:
    return f"{places[0]}" if len(places) == 1 else f"{places[0]} to {places[-1]}"


def _ranges(places: np.ndarray) -> str:
    """Increasing integers as text: "223" or "0 to 2, 9", and the first three runs of more than three."""
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []
    return ", ".join(map(_span, runs[:3])) + (" and so on" if len(runs) > 3 else "")
