"""The diagram of a network, drawn from the network itself."""

from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, PathPatch, Polygon
from matplotlib.path import Path
from torch import nn

from cnnlesson.anatomy import find_layer, layer_table
from cnnlesson.models.resnet import PlainBlock, ZeroPadding
from cnnlesson.plots.figures import PLAIN_COLOUR, figure

# The diagram is drawn in inches.
_WIDTH = 9.5
_ROOM = 0.2  # for the arrow at the end of a row
_LINE = 0.17  # from one line of type to the next, of 10 points
_CHARACTER = 0.087  # wide, about
_TALLEST = 1.3  # box
_BOW = 0.3  # of an arc: how far its handles reach, of which the curve takes three quarters
_FILLS = {"image": "#DDDDDD", "conv": "#9CCBEA", "pool": "#A6DCC4", "linear": "#E6BBD3"}
_INK = "#333333"


class _Layer(NamedTuple):
    """A box of the diagram."""

    name: str
    kind: str  # "image", "conv", "pool" or "linear"
    stage: str  # such as "layer1", "" outside of all
    channels: int  # of its output
    size: int  # height and width of its output, 1 for a vector
    window: str  # such as "3×3"
    stride: int
    groups: int


class _Shortcut(NamedTuple):
    first: int  # the places of the first and the last layer that it leads past
    last: int
    how: str  # it changes the shape: "1×1, stride 2" for a projection, or "zeros"; "" where it carries x as it is


def architecture_text(model: nn.Module, input_shape: tuple[int, int, int]) -> str:
    """The facts of `plot_architecture`: the totals, then a line a layer and a line a shortcut."""
    layers, shortcuts, caption = _read(model, input_shape)
    lines = [caption]
    for place, layer in enumerate(layers):
        maps = f"{layer.channels} of {layer.size}×{layer.size}" if layer.kind in ("image", "conv", "pool") else ""
        parts = [layer.window, f"stride {layer.stride}" if layer.stride > 1 else ""]
        parts += [f"{layer.groups} groups" if layer.groups > 1 else "", maps or f"{layer.channels} numbers"]
        lines.append(f"{layer.name}: {', '.join(filter(None, parts))}")
        for shortcut in shortcuts:
            if shortcut.last == place:
                past = f"past {layers[shortcut.first].name} to {layer.name}"
                lines.append(f"    a shortcut {past}" + (f" ({shortcut.how})" if shortcut.how else ""))
    return "\n".join(lines)


@figure("Diagram of a network from the image on the left to the logits on the right: a box a layer", architecture_text)
def plot_architecture(model: nn.Module, input_shape: tuple[int, int, int], ax: Axes | None = None) -> Axes:
    """The diagram of a network, read from the network itself: from the image to the logits, a box a layer.

    A box is as high and deep as the maps that the layer gives, and as wide as it has channels, both on compressed
    scales. Under it stand its window, stride, channels and size; batch norm, ReLU and dropout have no box. A shortcut
    is an arc past the layers of its block, dashed where it changes the shape.

    Args:
        model: any network that `layer_table` takes; one made under torch.device("meta") will do.
        input_shape: (channels, height, width) of one image, with height equal to width.
        ax: about 9.6 inches wide.
    """
    layers, shortcuts, caption = _read(model, input_shape)
    rows, stretch = _rows(layers, shortcuts)
    if shortcuts:
        caption += "\nArcs are shortcuts: solid ones carry x as it is, dashed ones change its shape."
    heights = [(_above(layers, row, shortcuts), _below(layers, row)) for row in rows]
    total = sum(above + below for above, below in heights) + _LINE * (1.4 + caption.count("\n"))
    ax = ax or plt.subplots(figsize=(_WIDTH + 0.1, total + 0.1))[1]
    ax.set_xlim(0, _WIDTH)
    ax.set_ylim(0, total)
    ax.set_aspect("equal")
    ax.axis("off")
    ax.text(0, total, caption, va="top", fontsize=11)
    ground = total - _LINE * (1.4 + caption.count("\n"))
    for row, (above, below) in zip(rows, heights, strict=True):
        ground -= above
        _plot_row(ax, layers, row, shortcuts, ground, stretch)
        ground -= below
    return ax


def _plot_row(
    ax: Axes, layers: list[_Layer], row: list[int], shortcuts: list[_Shortcut], ground: float, stretch: float
) -> None:
    """The boxes of a row, which stand on `ground`, the arcs above them and the type below."""
    left = 0.0
    edges = {}  # left and right edge of the slot of each layer
    for place in row:
        edges[place] = left, left + stretch * _slot(layers[place])
        left = edges[place][1]
    line = ground + 0.06  # along which the image goes through the boxes
    goes_on = row[-1] < len(layers) - 1
    end = left + _ROOM if goes_on else left - 0.1
    style = {"arrowstyle": "-|>" if goes_on else "-", "mutation_scale": 10, "shrinkA": 0, "shrinkB": 0}
    ax.add_patch(FancyArrowPatch((0, line), (end, line), color=_INK, linewidth=1, zorder=1, **style))
    for place in row:
        layer = layers[place]
        middle = sum(edges[place]) / 2
        width, height, depth = _box(layer)
        width *= min(stretch, 1.4)
        _plot_box(ax, middle - (width + depth) / 2, ground, width, height, depth, _FILLS[layer.kind])
        for number, words in enumerate(_words(layer)):
            _plot_words(ax, middle, ground, number, words)
    for shortcut in shortcuts:
        if shortcut.first in edges:
            start, stop = edges[shortcut.first][0] + 0.02, edges[shortcut.last][1] - 0.02
            _plot_arc(ax, start, stop, line, ground + _top(layers, shortcut), shortcut.how)
    for stage in dict.fromkeys(layers[place].stage for place in row):
        inside = [place for place in row if layers[place].stage == stage]
        if stage:
            _plot_stage(ax, layers[inside[-1]], edges[inside[0]][0], edges[inside[-1]][1], ground)


def _above(layers: list[_Layer], row: list[int], shortcuts: list[_Shortcut]) -> float:
    """What a row takes above the ground, for its boxes and arcs."""
    boxes = [sum(_box(layers[place])[1:]) for place in row]
    arcs = [
        _top(layers, shortcut) + 0.75 * _BOW + (1.4 * _LINE if shortcut.how else 0.05)
        for shortcut in shortcuts
        if shortcut.first in row
    ]
    return max(boxes + arcs)


def _below(layers: list[_Layer], row: list[int]) -> float:
    lines = 6 if any(layers[place].groups > 1 for place in row) else 5
    return (lines + 1) * _LINE


def _top(layers: list[_Layer], shortcut: _Shortcut) -> float:
    """How high above the ground the boxes reach that a shortcut leads past."""
    return max(sum(_box(layers[place])[1:]) for place in range(shortcut.first, shortcut.last + 1))


def _plot_box(ax: Axes, x: float, y: float, width: float, height: float, depth: float, colour: str) -> None:
    """A box seen from the front, a little from above and from the right."""
    front = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    top = [(x, y + height), (x + width, y + height), (x + width + depth, y + height + depth)]
    top += [(x + depth, y + height + depth)]
    side = [(x + width, y), (x + width + depth, y + depth), (x + width + depth, y + height + depth)]
    side += [(x + width, y + height)]
    for corners, shade in ((front, 1.0), (top, 1.08), (side, 0.82)):
        ax.add_patch(Polygon(corners, facecolor=_shaded(colour, shade), edgecolor=_INK, linewidth=0.7, zorder=2))


def _plot_words(ax: Axes, x: float, ground: float, line: int, words: str) -> None:
    weight = "bold" if line == 0 else "normal"
    ax.text(x, ground - 0.07 - line * _LINE, words, weight=weight, ha="center", va="top", fontsize=10)


def _words(layer: _Layer) -> list[str]:
    """The lines under a layer's box; in a stage its name and its size stand once for all its layers."""
    size = f"{layer.size}×{layer.size}" if layer.kind != "linear" else ""
    name = "" if layer.stage else layer.name
    stride = f"stride {layer.stride}" if layer.stride > 1 else ""
    groups = f"{layer.groups} groups" if layer.groups > 1 else ""
    return [name, layer.window, stride, str(layer.channels), "" if layer.stage else size, groups]


def _plot_stage(ax: Axes, last: _Layer, start: float, stop: float, ground: float) -> None:
    """The name of a stage between two lines that reach over all its layers, and the size of what it gives."""
    middle = (start + stop) / 2
    _plot_words(ax, middle, ground, 0, last.stage)
    _plot_words(ax, middle, ground, 4, f"{last.size}×{last.size}")
    reach = _CHARACTER * len(last.stage) / 2 + 0.08
    height = ground - 0.07 - _LINE / 2
    for left, right in ((start + 0.06, middle - reach), (middle + reach, stop - 0.06)):
        if right > left:
            ax.plot([left, right], [height, height], color=_INK, linewidth=1)


def _plot_arc(ax: Axes, start: float, stop: float, low: float, top: float, how: str) -> None:
    """From the line at `low` straight up to `top` and in a bow back to the line."""
    bow = top + _BOW
    corners = [(start, low), (start, top), (start, bow), (stop, bow), (stop, top), (stop, low)]
    codes = [Path.MOVETO, Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO]
    style = {"linestyle": (0, (3, 1.5)) if how else "-", "edgecolor": _INK if how else PLAIN_COLOUR}
    ax.add_patch(PathPatch(Path(corners, codes), facecolor="none", linewidth=1.6, zorder=1.5, **style))
    if how:
        ax.text((start + stop) / 2, top + 0.75 * _BOW + 0.03, how, ha="center", va="bottom", fontsize=10)


def _read(model: nn.Module, input_shape: tuple[int, int, int]) -> tuple[list[_Layer], list[_Shortcut], str]:
    """The layers that have a box, the shortcuts past them, and the totals in a line."""
    table = layer_table(model, input_shape)
    channels, size, _ = input_shape
    layers = [_Layer("image", "image", "", channels, size, "", 1, 1)]
    blocks = {name: block for name, block in model.named_modules() if _has_shortcut(block)}
    for name, row in table.drop(index="total").iterrows():
        layer, _ = find_layer(model, name)
        name = name.partition(",")[0]  # of a layer's later uses too
        kind = _kind(layer)
        if kind and not any(name.startswith(f"{block}.downsample") for block in blocks):
            stage = name.split(".")[0] if "." in name else ""
            out_size = 1 if pd.isna(row["out_size"]) else int(row["out_size"])
            window = "" if pd.isna(row["kernel"]) else f"{row['kernel']:.0f}×{row['kernel']:.0f}"
            stride = 1 if pd.isna(row["stride"]) else int(row["stride"])
            groups = getattr(layer, "groups", 1)
            layers.append(_Layer(name, kind, stage, int(row["out_channels"]), out_size, window, stride, groups))
    names = [layer.name for layer in layers]
    shortcuts = []
    for name, block in blocks.items():
        places = [place for place, layer in enumerate(names) if layer.startswith(f"{name}.")]
        shortcuts.append(_Shortcut(places[0], places[-1], _how(block.downsample)))
    weighted = sum(layer.kind in ("conv", "linear") for layer in layers)
    total = table.loc["total"]
    caption = (
        f"{type(model).__name__}: {weighted} layers with weights, {1e3 * total['params_k']:,.0f} parameters, "
        f"{total['flop_m']:,.0f} million multiply-adds an image"
    )
    return layers, shortcuts, caption


def _kind(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv2d):
        return "conv"
    if isinstance(layer, nn.Linear):
        return "linear"
    if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)):
        return "pool"
    return ""


def _has_shortcut(block: nn.Module) -> bool:
    return hasattr(block, "downsample") and hasattr(block, "residual") and not isinstance(block, PlainBlock)


def _how(shortcut: nn.Module) -> str:
    if isinstance(shortcut, ZeroPadding):
        return "zeros" if shortcut.missing or shortcut.stride > 1 else ""
    for layer in shortcut.modules():
        if isinstance(layer, nn.Conv2d):
            stride = f", stride {layer.stride[0]}" if layer.stride[0] > 1 else ""
            return f"{layer.kernel_size[0]}×{layer.kernel_size[1]}{stride}"
    return ""


def _box(layer: _Layer) -> tuple[float, float, float]:
    """Width, height and depth of a layer's box."""
    height = _TALLEST * min(1, layer.size / 224) ** 0.5
    return 0.05 + 0.026 * layer.channels.bit_length(), max(0.12, height), 0.15 * max(0.12, height)


def _slot(layer: _Layer) -> float:
    """The width that a layer takes in its row, with its type."""
    width, _, depth = _box(layer)
    words = _words(layer)
    if layer.stage:
        words = [layer.window, str(layer.channels)]  # what its neighbours have too
    return max(width + depth + 0.12, _CHARACTER * max(map(len, words)) + 0.1)


def _rows(layers: list[_Layer], shortcuts: list[_Shortcut]) -> tuple[list[list[int]], float]:
    """The places of the layers in as few rows as hold them, about alike in length, and how much to stretch them."""
    units = _units(layers, shortcuts)
    width = _WIDTH - _ROOM
    rows = _packed(units, layers, width)
    while width > 1 and len(_packed(units, layers, width - 0.1)) == len(rows):
        width -= 0.1
        rows = _packed(units, layers, width)
    longest = max(sum(_slot(layers[place]) for place in row) for row in rows)
    return rows, min((_WIDTH - _ROOM) / longest, 1.5)


def _units(layers: list[_Layer], shortcuts: list[_Shortcut]) -> list[list[int]]:
    """Layers that stand in one row: a stage, or of a stage that is too long a block."""
    starts = {shortcut.first: shortcut.last for shortcut in shortcuts}
    units = []
    for place, layer in enumerate(layers):
        if units and layer.stage and layers[units[-1][-1]].stage == layer.stage:
            units[-1].append(place)
        else:
            units.append([place])
    short = []
    for unit in units:
        if sum(_slot(layers[place]) for place in unit) <= _WIDTH - _ROOM:
            short.append(unit)
            continue
        within = -1  # the last layer of the block that goes on
        for place in unit:
            if place > within:
                short.append([])
            within = max(within, starts.get(place, -1))
            short[-1].append(place)
    return short


def _packed(units: list[list[int]], layers: list[_Layer], width: float) -> list[list[int]]:
    rows, used = [[]], 0.0
    for unit in units:
        needed = sum(_slot(layers[place]) for place in unit)
        if rows[-1] and used + needed > width:
            rows.append([])
            used = 0.0
        rows[-1] += unit
        used += needed
    return rows


def _shaded(colour: str, shade: float) -> tuple[float, float, float]:
    return tuple(min(1, shade * int(colour[place : place + 2], 16) / 255) for place in (1, 3, 5))
