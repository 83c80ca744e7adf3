"""What a network is made of: each layer's output size, memory, parameters, multiply-adds and receptive field."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    import pandas as pd


def layer_table(model: nn.Module, input_shape: tuple[int, int, int]) -> "pd.DataFrame":
    """One row per layer, with the columns of the lesson's slide, and a last row with the totals.

    A layer has a row if it has parameters or changes the shape of its input; ReLU and dropout do neither. A row
    "flatten" separates the last feature map from the first fully-connected layer. A layer that the network calls
    several times has one row per call, "pool", "pool, use 2" and so on; its parameters count once.

    Columns: in_channels and in_size (height and width) of the input; filters, kernel, stride and pad; out_channels
    and out_size of the output; memory_kb, the size of the float32 output in units of 1024 bytes; params_k, weights
    and biases in thousands; flop_m, multiply-adds in millions: a multiplication with its addition counts once, and
    only convolutions and fully-connected layers count, without their biases. All values are exact, and for one image.

    Args:
        model: a network of convolutions, poolings, batch norms and fully-connected layers. It runs once on an image
            of zeros, in evaluation mode, and is left unchanged.
        input_shape: (channels, height, width) of one image, with height equal to width.
    """
    import pandas as pd

    channels, height, width = input_shape
    if height != width:
        raise ValueError(f"layer_table takes square images (height and width share a column), got {height}×{width}")

    names = {layer: name for name, layer in model.named_modules() if not list(layer.children())}
    rows, uses = [], Counter()

    def record(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        before, after = inputs[0].shape[1:], output.shape[1:]
        # torchvision flattens with a function between two layers, which no hook sees: add the row here.
        if isinstance(layer, nn.Linear) and rows and len(rows[-1]["after"]) == 3:
            rows.append(_row("flatten", nn.Flatten(), rows[-1]["after"], before, is_first_use=True))
        uses[layer] += 1
        if after != before or list(layer.parameters()):
            is_first_use = uses[layer] == 1
            name = names[layer] if is_first_use else f"{names[layer]}, use {uses[layer]}"
            rows.append(_row(name, layer, before, after, is_first_use))

    device = next(model.parameters()).device
    with forward_hooks(names, record), evaluation_mode(model), torch.no_grad():
        model(torch.zeros(1, channels, height, width, device=device))

    table = pd.DataFrame(rows).drop(columns="after").set_index("layer")
    integers = ["in_channels", "in_size", "filters", "kernel", "stride", "pad", "out_channels", "out_size"]
    table[integers] = table[integers].astype("Int64")
    totals = table[["memory_kb", "params_k", "flop_m"]].sum()
    table.loc["total", totals.index] = totals
    return table


def find_layer(model: nn.Module, name: str) -> tuple[nn.Module, int]:
    """The layer or block that a row of `layer_table` names, and which of its uses: 1, or 2 for "pool, use 2".

    Raises:
        ValueError: the model has no such layer; the message lists those it has.
    """
    layers = dict(model.named_modules())
    path, _, use = name.partition(", use ")
    if path == "flatten" and path not in layers:  # a row without a layer
        return nn.Flatten(), 1
    if path not in layers:
        names = ", ".join(name for name, layer in layers.items() if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)))
        raise ValueError(f"the model has no layer {name!r}; its convolutional and pooling layers are {names}")
    return layers[path], int(use or 1)


@contextmanager
def forward_hooks(modules: Iterable[nn.Module], hook: Callable) -> Iterator[None]:
    """Inside the `with` block, call `hook(module, inputs, output)` whenever one of `modules` has run."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode inside the `with` block, then restore the mode of each layer."""
    training = {layer: layer.training for layer in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for layer, was_training in training.items():
            layer.training = was_training


def _row(name: str, layer: nn.Module, before: torch.Size, after: torch.Size, is_first_use: bool) -> dict:
    """A row of `layer_table`; `before` and `after` are the shapes of the input and output, without the batch."""
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
        "params_k": sum(parameter.numel() for parameter in layer.parameters()) / 1e3 if is_first_use else 0.0,
        "flop_m": _multiply_adds(layer, after) / 1e6,
        "after": after,
    }
    if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        kernel = _height(layer.kernel_size)
        pads = {"same": kernel // 2, "valid": 0}
        row["kernel"] = kernel
        row["stride"] = _height(layer.stride)
        row["pad"] = pads[layer.padding] if isinstance(layer.padding, str) else _height(layer.padding)
    return row


def _height(setting: int | tuple[int, ...]) -> int:
    """The height of a window: torch stores one number, or (height, width)."""
    return setting[0] if isinstance(setting, tuple) else setting


def _multiply_adds(layer: nn.Module, output: torch.Size) -> int:
    if isinstance(layer, nn.Conv2d):
        # Each output value is a sum over its window, in each channel that its group of filters sees.
        kernel_height, kernel_width = layer.kernel_size
        return output.numel() * kernel_height * kernel_width * layer.in_channels // layer.groups
    if isinstance(layer, nn.Linear):
        return layer.in_features * layer.out_features
    return 0


def receptive_field(
    model: nn.Module, layer: str, input_shape: tuple[int, int, int], row: int, column: int
) -> tuple[int, int, int, int]:
    """The smallest box around the pixels that one position in a layer's output depends on.

    The box is (top, left, bottom, right), as in image[:, top:bottom, left:right]. It covers every path through the
    network, shortcuts included. Near the border, where the position also sees padding, the box ends with the image.

    How it works: every layer becomes an average of its inputs, and max pooling becomes average pooling. Then no two
    paths from a pixel cancel, so the position depends on exactly the pixels whose gradient is not zero. The model's
    own weights are neither used nor changed.

    Args:
        model: a network of convolutions, poolings, batch norms and element-wise functions up to `layer`.
        layer: the name of a layer as in `layer_table`, such as "pool, use 2", or of a block, such as "layer2.0".
        input_shape: (channels, height, width) of one image.
        row, column: the position in the layer's output, counted from 0.

    Raises:
        ValueError: the model has no such layer, its output is not a feature map, or the position is outside of it.
    """
    module, use = find_layer(model, layer)
    outputs = []

    def stop(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        outputs.append(output)
        if len(outputs) == use:
            raise _Stop

    # float64, since float32 would round the gradient at the corner of a deep network's receptive field to 0.
    image = torch.ones(1, *input_shape, dtype=torch.float64, requires_grad=True)
    try:
        with forward_hooks([module], stop), evaluation_mode(model), _averaging(model):
            model(image)
        raise ValueError(f"the forward pass never reaches the layer {layer!r}")
    except _Stop:
        maps = outputs[-1]

    if maps.dim() != 4:
        raise ValueError(f"the output of {layer!r} has no rows and columns: choose a layer before the linear ones")
    height, width = maps.shape[2:]
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(
            f"row {row}, column {column} is outside the output of {layer!r}: choose a row from 0 to {height - 1} "
            f"and a column from 0 to {width - 1}"
        )
    maps[0, :, row, column].sum().backward()
    is_seen = image.grad[0].any(dim=0)  # (height, width)
    if not is_seen.any():
        raise ValueError(f"row {row}, column {column} of {layer!r} sees only padding: choose a position further inside")
    rows, columns = is_seen.any(dim=1).nonzero(), is_seen.any(dim=0).nonzero()
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


class _Stop(Exception):  # noqa: N818 (it is not an error)
    """Ends a forward pass as soon as the layer has run."""


@contextmanager
def _averaging(model: nn.Module) -> Iterator[None]:
    """Inside the `with` block, layers average their inputs, whatever their weights, and batch norms do nothing."""
    kinds = nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d, nn.Linear
    layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
    try:
        for layer in layers:
            layer.forward = partial(_average, layer)  # type: ignore[method-assign]  # covers the class's method
        yield
    finally:
        for layer in layers:
            del layer.forward  # uncovers the forward of its class


def _average(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if isinstance(layer, nn.MaxPool2d):
        return F.avg_pool2d(x, layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
    if isinstance(layer, nn.Linear):
        return x.mean(dim=-1, keepdim=True).repeat_interleave(layer.out_features, dim=-1)
    if isinstance(layer, nn.Conv2d):
        # All filters have the same weights and return the same map: compute one, from the mean of the channels.
        height, width = layer.kernel_size
        kernel = x.new_full((1, 1, height, width), 1 / (height * width))
        x = F.conv2d(x.mean(dim=1, keepdim=True), kernel, None, layer.stride, layer.padding, layer.dilation)
        return x.repeat(1, layer.out_channels, 1, 1)  # a copy, since the ReLU after it may work in place
    return x


def arithmetic(layer: nn.Module, row: "pd.Series") -> dict[str, str]:
    """How out_size, memory_kb, params_k and flop_m in a row of `layer_table` follow from the layer, as text.

    A column for which there is nothing to compute is missing, such as the out_size of a fully-connected layer.
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
        weights = list(layer.weight.shape)  # [filters, channels that each sees, height, width]
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
