"""What a network is made of: the size, memory, parameters and work of each layer, and what it sees of the image."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    import pandas as pd


def layer_table(model: nn.Module, input_shape: tuple[int, int, int]) -> "pd.DataFrame":
    """A row a layer, in the columns of the lesson's slide, and a last row with the totals.

    A layer has a row when it has parameters or changes the shape of what goes through it; ReLU and dropout do
    neither. Where a fully-connected layer follows a feature map, a row "flatten" stands between them. A layer that the
    network calls several times has a row each time, "pool", "pool, use 2" and so on; its parameters count once.

    Columns: in_channels and in_size (height and width) of the input; filters, kernel, stride and pad; out_channels
    and out_size of the output; memory_kb, the output's float32 numbers in units of 1024 bytes; params_k, weights and
    biases in thousands; flop_m, in millions, where one multiplication with its addition counts one and only
    convolutions and fully-connected layers count, without their biases. Figures are exact, not rounded, and are
    for one image.

    Args:
        model: a network of convolutions, poolings, batch norms and fully-connected layers. It is run once on an
            image of zeros, in evaluation mode, and left as it was.
        input_shape: (channels, height, width) of one image, with height equal to width.
    """
    import pandas as pd

    channels, height, width = input_shape
    if height != width:
        raise ValueError(f"the table has one column for height and width: give a square image, not {height}×{width}")

    names = {layer: name for name, layer in model.named_modules() if not list(layer.children())}
    rows, uses = [], Counter()

    def record(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        before, after = inputs[0].shape[1:], output.shape[1:]
        is_first_linear = isinstance(layer, nn.Linear) and rows and len(rows[-1]["after"]) == 3
        if is_first_linear:  # torchvision flattens between two layers, in a function that no hook sees
            rows.append(_row("flatten", nn.Flatten(), rows[-1]["after"], before, is_first=True))
        uses[layer] += 1
        if after != before or list(layer.parameters()):
            is_first = uses[layer] == 1
            name = names[layer] if is_first else f"{names[layer]}, use {uses[layer]}"
            rows.append(_row(name, layer, before, after, is_first))

    handles = [layer.register_forward_hook(record) for layer in names]
    device = next(model.parameters()).device
    try:
        with evaluation_mode(model), torch.no_grad():
            model(torch.zeros(1, channels, height, width, device=device))
    finally:
        for handle in handles:
            handle.remove()

    table = pd.DataFrame(rows).drop(columns="after").set_index("layer")
    whole_numbers = ["in_channels", "in_size", "filters", "kernel", "stride", "pad", "out_channels", "out_size"]
    table[whole_numbers] = table[whole_numbers].astype("Int64")
    totals = table[["memory_kb", "params_k", "flop_m"]].sum()
    table.loc["total", totals.index] = totals
    return table


def find_layer(model: nn.Module, name: str) -> tuple[nn.Module, int]:
    """The layer of a row of `layer_table`, or a block, and which of its uses it is: 1, or 2 for "pool, use 2".

    Raises:
        ValueError: the model has no such layer; names those that it has.
    """
    parts = dict(model.named_modules())
    path, _, use = name.partition(", use ")
    if path == "flatten" and path not in parts:  # a row without a layer
        return nn.Flatten(), 1
    if path not in parts:
        names = ", ".join(name for name, part in parts.items() if isinstance(part, (nn.Conv2d, nn.MaxPool2d)))
        raise ValueError(f"the model has no layer {name!r}: its convolutions and poolings are {names}")
    return parts[path], int(use or 1)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode for a while; each layer is then as it was."""
    training = {layer: layer.training for layer in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for layer, was_training in training.items():
            layer.training = was_training


def _row(name: str, layer: nn.Module, before: torch.Size, after: torch.Size, is_first: bool) -> dict:
    row = {
        "layer": name,
        "in_channels": before[0],
        "in_size": before[1] if len(before) == 3 else None,
        "filters": layer.out_channels if isinstance(layer, nn.Conv2d) else None,
        "kernel": None,
        "stride": None,
        "pad": None,
        "out_channels": after[0],
        "out_size": after[1] if len(after) == 3 else None,
        "memory_kb": after.numel() * 4 / 1024,
        "params_k": sum(parameter.numel() for parameter in layer.parameters()) / 1e3 if is_first else 0.0,
        "flop_m": _multiply_adds(layer, after) / 1e6,
        "after": after,
    }
    if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        row["kernel"] = _height(layer.kernel_size)
        row["stride"] = _height(layer.stride)
        row["pad"] = row["kernel"] // 2 if layer.padding == "same" else _height(layer.padding)
    return row


def _height(setting: int | tuple[int, int]) -> int:
    """The height of a window, which torch keeps as one number or as (height, width)."""
    return setting[0] if isinstance(setting, tuple) else setting


def _multiply_adds(layer: nn.Module, output: torch.Size) -> int:
    """Every number of the output is a sum over its window and over the channels that its group of filters sees."""
    if isinstance(layer, nn.Conv2d):
        kernel_height, kernel_width = layer.kernel_size
        return output.numel() * kernel_height * kernel_width * layer.in_channels // layer.groups
    if isinstance(layer, nn.Linear):
        return layer.in_features * layer.out_features
    return 0


def receptive_field(
    model: nn.Module, layer: str, input_shape: tuple[int, int, int], row: int, column: int
) -> tuple[int, int, int, int]:
    """The pixels that one place of a layer's output depends on: the smallest box around them.

    The box is (top, left, bottom, right) as in image[:, top:bottom, left:right]. It holds for every path through the
    network, shortcuts included, and ends at the image's edge where the place also sees padding.

    Every weight is taken as the same positive number and max pooling as average pooling. No two paths from a pixel
    then cancel each other, and a gradient that is not zero shows each pixel that has one. Weights of the model itself
    are neither used nor changed.

    Args:
        model: a network of convolutions, poolings, batch norms and element-wise functions as far as `layer`.
        layer: the name of the layer as in `layer_table`, such as "pool, use 2", or of a block, such as "layer2.0".
        input_shape: (channels, height, width) of one image.
        row, column: the place in the output of the layer, counted from 0.

    Raises:
        ValueError: the model has no such layer, its output is not a map, or the place lies outside of it.
    """
    part, use = find_layer(model, layer)
    outputs = []

    def stop(part: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        outputs.append(output)
        if len(outputs) == use:
            raise _Stop

    image = torch.ones(1, *input_shape, dtype=torch.float64, requires_grad=True)
    handle = part.register_forward_hook(stop)
    try:
        with evaluation_mode(model), _averaging(model):
            torch.func.functional_call(model, _positive_weights(model), image)
        raise ValueError(f"an image does not pass through the layer {layer!r}")
    except _Stop:
        maps = outputs[-1]
    finally:
        handle.remove()

    if maps.dim() != 4:
        raise ValueError(f"the layer {layer!r} has no rows and columns: choose one before the fully-connected layers")
    height, width = maps.shape[2:]
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(
            f"the output of {layer!r} has {height} rows and {width} columns, counted from 0: "
            f"there is no row {row}, column {column}"
        )
    maps[0, :, row, column].sum().backward()
    is_seen = image.grad[0].sum(dim=0) > 0  # (height, width)
    if not is_seen.any():
        raise ValueError(f"row {row}, column {column} of {layer!r} sees padding alone: choose a place further inside")
    rows, columns = is_seen.any(dim=1).nonzero(), is_seen.any(dim=0).nonzero()
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


class _Stop(Exception):  # noqa: N818 (it is no error)
    """Ends a forward pass at the layer that is asked for."""


@contextmanager
def _averaging(model: nn.Module) -> Iterator[None]:
    """While it lasts, convolutions and max poolings give the mean of each window."""
    windows = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.MaxPool2d)]
    try:
        for part in windows:
            part.forward = partial(_mean_of_windows, part)
        yield
    finally:
        for part in windows:
            del part.forward  # that of its class is back


def _mean_of_windows(layer: nn.Conv2d | nn.MaxPool2d, x: torch.Tensor) -> torch.Tensor:
    if isinstance(layer, nn.MaxPool2d):
        return F.avg_pool2d(x, layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
    # With the same weights everywhere all filters give the same map: one is computed, from the mean of the channels.
    height, width = layer.kernel_size
    kernel = x.new_full((1, 1, height, width), 1 / (height * width))
    x = F.conv2d(x.mean(dim=1, keepdim=True), kernel, None, layer.stride, layer.padding, layer.dilation)
    return x.expand(-1, layer.out_channels, -1, -1)


def _positive_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Numbers in place of all weights and statistics: layers average, biases and batch norms change nothing.

    float64, since the gradient at the corner of a deep network's field is far smaller than float32 can hold. Each is
    one number that is seen as many, so a large model takes no more memory.
    """
    weights = {}
    for name, old in [*model.named_parameters(), *model.named_buffers()]:
        is_filter = old.dim() > 1
        is_one = name.endswith(("weight", "running_var"))
        value = 1 / old[0].numel() if is_filter else float(is_one)
        weights[name] = torch.tensor(value, dtype=torch.float64).expand(old.shape)
    return weights


def arithmetic(layer: nn.Module, row: "pd.Series") -> dict[str, str]:
    """How out_size, memory_kb, params_k and flop_m of a row of `layer_table` follow from the layer, as text.

    A column is left out where nothing is worked out, such as the out_size of a fully-connected layer.
    """
    import pandas as pd

    row = {name: value if pd.isna(value) or value % 1 else int(value) for name, value in row.items()}
    outputs = [row["out_channels"]] if pd.isna(row["out_size"]) else [row["out_channels"], *[row["out_size"]] * 2]
    how = {"memory_kb": f"{product_text(outputs)}·4 / 1024 = {row['memory_kb']:g}"}
    if not pd.isna(row["kernel"]):
        exact = (row["in_size"] + 2 * row["pad"] - row["kernel"]) / row["stride"] + 1
        formula = f"({row['in_size']} + 2·{row['pad']} - {row['kernel']}) / {row['stride']} + 1"
        how["out_size"] = f"{formula} = {exact:g}" + (", rounded down" if exact % 1 else "")
    how["params_k"] = how["flop_m"] = "no weights"
    if isinstance(layer, nn.Conv2d | nn.Linear):
        weights = list(layer.weight.shape)  # filters, the channels that each sees, and its height and width
        biases = f" + {len(layer.bias)}" if layer.bias is not None else ""
        how["params_k"] = f"{product_text(weights)}{biases} = {1e3 * row['params_k']:,.0f}"
        how["flop_m"] = f"{product_text(weights + outputs[1:])} = {1e6 * row['flop_m']:,.0f}"
    elif list(layer.parameters()):
        how["params_k"] = f"{product_text([2, row['out_channels']])} = {1e3 * row['params_k']:,.0f}"
        how["flop_m"] = "not counted"
    if list(layer.parameters()) and row["params_k"] == 0:
        how["params_k"] = "counted at the first use of the layer"
    return how


def product_text(factors: list[int]) -> str:
    return "·".join(str(factor) for factor in factors)
