"""Figures of what a network is made of: its diagram, drawn from the network itself, and what each layer costs."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, PathPatch, Polygon
from matplotlib.path import Path
from matplotlib.text import Text
from torch import nn

from cnnlesson.anatomy import find_layer, layer_table
from cnnlesson.models.resnet import PlainBlock, ZeroPadding
from cnnlesson.plots.figures import PLAIN_COLOUR, TRAIN_COLOUR, VAL_COLOUR, describe, lesson_style, new_axes

_COSTS = {  # columns of `layer_table`
    "memory_kb": "memory of the output (KB)",
    "params_k": "parameters (thousands)",
    "flop_m": "multiply-adds (millions)",
}

# The diagram is drawn in inches.
_WIDTH = 9.5
_ROW = _WIDTH - 0.2  # the rest is for the arrow at the end of a row
_LINE = 0.17  # from one line of text to the next, of 10 points
_CHARACTER = 0.087  # its width, about
_TALLEST = 1.3  # box
_BOW = 0.3  # of an arc: how far its control points reach, of which the curve takes three quarters
_FILLS = {"image": "#DDDDDD", "Conv2d": "#9CCBEA", "Pool2d": "#A6DCC4", "Linear": "#E6BBD3"}  # by kind of layer
_INK = "#333333"


class _Layer(NamedTuple):
    """A box of the diagram."""

    name: str
    kind: str  # one of `_FILLS`
    channels: int  # of its output
    size: int  # height and width of its output, 1 for a vector
    stage: str = ""  # such as "layer1"; layers outside of all stages have none
    block: str = ""  # the block with a shortcut, such as "layer1.0"
    shortcut: str = ""  # how the shortcut of the block changes the shape: "1×1, stride 2" or "zeros"
    window: str = ""  # such as "3×3"
    stride: str = ""  # such as "stride 2"
    groups: str = ""  # such as "2 groups"

    @property
    def box(self) -> tuple[float, float, float]:
        """Width, height and depth."""
        height = max(0.12, _TALLEST * min(1, self.size / 224) ** 0.5)
        return 0.05 + 0.026 * self.channels.bit_length(), height, 0.15 * height

    @property
    def top(self) -> float:
        _, height, depth = self.box
        return height + depth

    @property
    def arc(self) -> float:
        """The height of the shortcut above the box, with its text."""
        if not self.block:
            return 0
        return 0.75 * _BOW + (1.4 * _LINE if self.shortcut else 0.05)

    @property
    def lines(self) -> list[str]:
        """The text below the box. In a stage, name and size are written once for all layers."""
        name = "" if self.stage else self.name
        size = "" if self.stage or self.kind == "Linear" else f"{self.size}×{self.size}"
        return [name, self.window, self.stride, str(self.channels), size, self.groups]

    @property
    def slot(self) -> float:
        """The width of the layer in its row, with its text."""
        width, _, depth = self.box
        lines = [self.window, str(self.channels)] if self.stage else self.lines  # other lines may overlap neighbours
        return max(width + depth + 0.12, _CHARACTER * max(map(len, lines)) + 0.1)


@lesson_style
def plot_architecture(model: nn.Module, input_shape: tuple[int, int, int], ax: Axes | None = None) -> Axes:
    """The diagram of a network, read from the network itself: from the image to the logits, a box per layer.

    The height and depth of a box show the size of the layer's output, its width the number of channels, both on
    compressed scales. Below the box are its window, stride, channels and size. Batch norm, ReLU and dropout have no
    box. A shortcut is an arc past the layers of its block, dashed if it changes the shape.

    Args:
        model: any network that `layer_table` accepts; it may be on the meta device.
        input_shape: (channels, height, width) of one image, with height equal to width.
        ax: about 9.6 inches wide.
    """
    layers, caption = _read(model, input_shape)
    facts = _facts(layers, caption)
    rows = _rows(layers)
    stretch = min(_ROW / max(map(_length, rows)), 1.5)
    if any(layer.block for layer in layers):
        caption += "\nArcs are shortcuts: solid ones carry x unchanged, dashed ones change its shape."
    title = _LINE * (1.4 + caption.count("\n"))
    above = [max(layer.top + layer.arc for layer in row) for row in rows]  # the line that the boxes are on
    below = [_LINE * (7 if any(layer.groups for layer in row) else 6) for row in rows]
    total = title + sum(above) + sum(below)
    ax = ax or new_axes((_WIDTH + 0.1, total + 0.1))
    ax.set(xlim=(0, _WIDTH), ylim=(0, total), aspect="equal")
    ax.set_axis_off()
    ax.text(0, total, caption, va="top", fontsize=11)
    ground = total - title
    for row, height, depth in zip(rows, above, below, strict=True):
        ground -= height
        _plot_row(ax, row, ground, stretch, is_last=row is rows[-1])
        ground -= depth
    return describe(ax, "Diagram of a network, from the image on the left to the logits on the right", facts)


def _facts(layers: list[_Layer], caption: str) -> str:
    """The totals, then one line per layer and per shortcut."""
    lines = [caption]
    for block, of_block in groupby(layers, key=lambda layer: layer.block):
        of_block = list(of_block)
        for layer in of_block:
            output = "numbers" if layer.kind == "Linear" else f"of {layer.size}×{layer.size}"
            parts = [layer.window, layer.stride, layer.groups, f"{layer.channels} {output}"]
            lines.append(f"{layer.name}: {', '.join(filter(None, parts))}")
        if block:
            how = f" ({of_block[0].shortcut})" if of_block[0].shortcut else ""
            lines.append(f"    a shortcut past {of_block[0].name} to {of_block[-1].name}{how}")
    return "\n".join(lines)


def _plot_row(ax: Axes, row: list[_Layer], ground: float, stretch: float, is_last: bool) -> None:
    """The boxes of a row on the line `ground`, the arcs above them and the text below."""
    edges = stretch * np.cumsum([0.0, *(layer.slot for layer in row)])  # of the layers' slots
    line = ground + 0.06  # from layer to layer, through the boxes
    end = edges[-1] - 0.1 if is_last else edges[-1] + _WIDTH - _ROW
    style = {"arrowstyle": "-" if is_last else "-|>", "mutation_scale": 10, "shrinkA": 0, "shrinkB": 0}
    ax.add_patch(FancyArrowPatch((0, line), (end, line), color=_INK, linewidth=1, zorder=1, **style))
    for layer, left, right in zip(row, edges, edges[1:], strict=False):
        _plot_box(ax, layer, (left + right) / 2, ground, min(stretch, 1.4))
        for number, text in enumerate(layer.lines):
            _plot_text(ax, (left + right) / 2, ground, number, text)
    for first, last in _ends(row, "block"):
        top = ground + max(layer.top for layer in row[first : last + 1])
        _plot_arc(ax, edges[first] + 0.02, edges[last + 1] - 0.02, line, top, row[first].shortcut)
    for first, last in _ends(row, "stage"):
        _plot_stage(ax, row[last], edges[first], edges[last + 1], ground)


def _ends(row: list[_Layer], field: str) -> list[tuple[int, int]]:
    """The places in a row of the first and of the last layer of each block or stage."""
    groups = groupby(range(len(row)), key=lambda place: getattr(row[place], field))
    places = [list(places) for name, places in groups if name]
    return [(of_group[0], of_group[-1]) for of_group in places]


def _plot_box(ax: Axes, layer: _Layer, middle: float, ground: float, stretch: float) -> None:
    """A box seen from the front, slightly from above and from the right."""
    width, height, depth = layer.box
    width *= stretch
    left = middle - (width + depth) / 2
    right, top = left + width, ground + height
    front = [(left, ground), (right, ground), (right, top), (left, top)]
    above = [(left, top), (right, top), (right + depth, top + depth), (left + depth, top + depth)]
    side = [(right, ground), (right + depth, ground + depth), (right + depth, top + depth), (right, top)]
    for corners, shade in ((front, 1.0), (above, 1.08), (side, 0.82)):
        colour = [min(1, shade * part) for part in to_rgb(_FILLS[layer.kind])]
        ax.add_patch(Polygon(corners, facecolor=colour, edgecolor=_INK, linewidth=0.7, zorder=2))


def _plot_text(ax: Axes, x: float, ground: float, line: int, text: str) -> Text:
    weight = "bold" if line == 0 else "normal"
    return ax.text(x, ground - 0.07 - line * _LINE, text, weight=weight, ha="center", va="top", fontsize=10)


def _plot_stage(ax: Axes, last: _Layer, start: float, stop: float, ground: float) -> None:
    """The name of a stage on a line that spans all its layers, and the size of its output."""
    height = ground - 0.07 - _LINE / 2
    ax.plot([start + 0.06, stop - 0.06], [height, height], color=_INK, linewidth=1)
    name = _plot_text(ax, (start + stop) / 2, ground, 0, last.stage)
    name.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 2})
    _plot_text(ax, (start + stop) / 2, ground, 4, f"{last.size}×{last.size}")


def _plot_arc(ax: Axes, start: float, stop: float, low: float, top: float, how: str) -> None:
    """From the line at `low` straight up to `top` and in a bow back to the line."""
    bow = top + _BOW
    corners = [(start, low), (start, top), (start, bow), (stop, bow), (stop, top), (stop, low)]
    codes = [Path.MOVETO, Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO]
    style = {"linestyle": (0, (3, 1.5)) if how else "-", "edgecolor": _INK if how else PLAIN_COLOUR}
    ax.add_patch(PathPatch(Path(corners, codes), facecolor="none", linewidth=1.6, zorder=1.5, **style))
    if how:
        ax.text((start + stop) / 2, top + 0.75 * _BOW + 0.03, how, ha="center", va="bottom", fontsize=10)


def _read(model: nn.Module, input_shape: tuple[int, int, int]) -> tuple[list[_Layer], str]:
    """The layers that have a box, and one line with the totals."""
    table = layer_table(model, input_shape)
    channels, size, _ = input_shape
    layers = [_Layer("image", "image", channels, size)]
    shortcuts = {name: _how(block.downsample) for name, block in model.named_modules() if _has_shortcut(block)}
    for name, row in table.drop(index="total").iterrows():
        layer, _ = find_layer(model, name)
        kind = next((kind for kind in _FILLS if type(layer).__name__.endswith(kind)), None)
        block = next((block for block in shortcuts if name.startswith(f"{block}.")), "")
        if kind and not (block and name.startswith(f"{block}.downsample")):
            known, groups = row.dropna(), getattr(layer, "groups", 1)
            layers.append(
                _Layer(
                    name=name.partition(",")[0],  # later uses of a layer have its name
                    kind=kind,
                    channels=int(row["out_channels"]),
                    size=int(known.get("out_size", 1)),
                    stage=name.split(".")[0] if "." in name else "",
                    block=block,
                    shortcut=shortcuts.get(block, ""),
                    window=f"{row['kernel']:.0f}×{row['kernel']:.0f}" if "kernel" in known else "",
                    stride=f"stride {row['stride']:.0f}" if known.get("stride", 1) > 1 else "",
                    groups=f"{groups} groups" if groups > 1 else "",
                )
            )
    weighted = sum(layer.kind in ("Conv2d", "Linear") for layer in layers)
    total = table.loc["total"]
    caption = (
        f"{type(model).__name__}: {weighted} layers with weights, {1e3 * total['params_k']:,.0f} parameters, "
        f"{total['flop_m']:,.0f} million multiply-adds per image"
    )
    return layers, caption


def _has_shortcut(block: nn.Module) -> bool:
    return hasattr(block, "downsample") and hasattr(block, "residual") and not isinstance(block, PlainBlock)


def _how(shortcut: nn.Module) -> str:
    """How a shortcut changes the shape: "1×1, stride 2" for a projection, or "zeros"; "" if it carries x unchanged."""
    if isinstance(shortcut, ZeroPadding):
        return "zeros" if shortcut.missing or shortcut.stride > 1 else ""
    for layer in shortcut.modules():
        if isinstance(layer, nn.Conv2d):
            stride = f", stride {layer.stride[0]}" if layer.stride[0] > 1 else ""
            return f"{layer.kernel_size[0]}×{layer.kernel_size[1]}{stride}"
    return ""


def _length(layers: list[_Layer]) -> float:
    return sum(layer.slot for layer in layers)


def _rows(layers: list[_Layer]) -> list[list[_Layer]]:
    """The layers in as few rows as fit, of about the same length. A stage stays in one row unless it is too long."""
    units = []
    for _, stage in groupby(layers, key=lambda layer: layer.stage or layer.name):
        stage = list(stage)
        blocks = [list(block) for _, block in groupby(stage, key=lambda layer: layer.block or layer.name)]
        units += [stage] if _length(stage) <= _ROW else blocks
    fewest = len(_packed(units, _ROW))
    packings = (_packed(units, width) for width in np.append(np.arange(1, _ROW, 0.1), _ROW))
    return next(rows for rows in packings if len(rows) == fewest)


def _packed(units: list[list[_Layer]], width: float) -> list[list[_Layer]]:
    rows = [units[0]]
    for unit in units[1:]:
        if _length(rows[-1] + unit) <= width:
            rows[-1] = rows[-1] + unit
        else:
            rows.append(unit)
    return rows


@lesson_style
def plot_layers(table: pd.DataFrame, axes: Sequence[Axes] | None = None, picked: str | None = None) -> Sequence[Axes]:
    """Memory, parameters and multiply-adds of each layer as bars, in three panels.

    Args:
        table: from `cnnlesson.anatomy.layer_table`.
        picked: the layer whose bars have another colour.
    """
    table = table.drop(index="total", errors="ignore")
    if axes is None:
        axes = plt.subplots(1, 3, figsize=(9.6, 0.26 * len(table) + 1.2), sharey=True)[1]
    facts = []
    for ax, (column, title) in zip(axes, _COSTS.items(), strict=True):
        costs = table[column]
        colours = [TRAIN_COLOUR if layer == picked else VAL_COLOUR for layer in table.index]
        bars = ax.barh(table.index, costs, color=colours)
        ax.bar_label(bars, map(_short, costs), padding=2, fontsize=10)
        ax.set_title(title, fontsize=11)
        ax.margins(x=0.25, y=0.6 / len(table))
        ax.set_xticks([])
        ax.spines[["top", "right", "bottom"]].set_visible(False)
        facts.append(f"{title}: most in {costs.idxmax()}, {costs.max() / costs.sum():.0%} of the total")
    axes[0].invert_yaxis()  # sharey: the first layer on top in all three
    alt = "Bars of the memory, the parameters and the multiply-adds of each layer"
    return describe(axes, alt, "\n".join(facts))


def _short(value: float) -> str:
    """The value, with one decimal if it is small, and nothing if that would be 0."""
    if value < 0.05:
        return ""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"
