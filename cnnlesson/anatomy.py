"""What a network is made of: the size, memory, parameters and work of each layer."""

import pandas as pd
import torch
from torch import nn


def layer_table(model: nn.Module, input_shape: tuple[int, int, int]) -> pd.DataFrame:
    """A row a layer, in the columns of the lesson's slide, and a last row with the totals.

    A layer has a row when it has parameters or changes the shape of what goes through it; ReLU and dropout do
    neither. Where a fully-connected layer follows a feature map, a row "flatten" stands between them.

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
    channels, height, width = input_shape
    if height != width:
        raise ValueError(f"the table has one column for height and width: give a square image, not {height}×{width}")

    names = {layer: name for name, layer in model.named_modules() if not list(layer.children())}
    rows = []

    def record(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        before, after = inputs[0].shape[1:], output.shape[1:]
        is_first_linear = isinstance(layer, nn.Linear) and rows and len(rows[-1]["after"]) == 3
        if is_first_linear:  # torchvision flattens between two layers, in a function that no hook sees
            rows.append(_row("flatten", nn.Flatten(), rows[-1]["after"], before))
        if after != before or list(layer.parameters()):
            rows.append(_row(names[layer], layer, before, after))

    handles = [layer.register_forward_hook(record) for layer in names]
    training = {layer: layer.training for layer in model.modules()}
    device = next(model.parameters()).device
    try:
        model.eval()
        with torch.no_grad():
            model(torch.zeros(1, channels, height, width, device=device))
    finally:
        for handle in handles:
            handle.remove()
        for layer, was_training in training.items():
            layer.training = was_training

    table = pd.DataFrame(rows).drop(columns="after").set_index("layer")
    whole_numbers = ["in_channels", "in_size", "filters", "kernel", "stride", "pad", "out_channels", "out_size"]
    table[whole_numbers] = table[whole_numbers].astype("Int64")
    totals = table[["memory_kb", "params_k", "flop_m"]].sum()
    table.loc["total", totals.index] = totals
    return table


def _row(name: str, layer: nn.Module, before: torch.Size, after: torch.Size) -> dict:
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
        "params_k": sum(parameter.numel() for parameter in layer.parameters()) / 1e3,
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
