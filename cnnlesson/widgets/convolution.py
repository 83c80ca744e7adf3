"""A window that slides over an image: the output size and the costs of a convolution."""

import torch
from torch import nn

from cnnlesson.anatomy import arithmetic, layer_table
from cnnlesson.plots import blank, description, plot_convolution
from cnnlesson.widgets.explorer import Explorer, Slider


def explore_convolution(size: int = 7, kernel: int = 3, stride: int = 2, padding: int = 0) -> Explorer:
    """The output size, parameters, multiply-adds and memory of a convolution, and its window at each position."""
    controls = {
        "size": Slider("input size", size, 1, 227),
        "kernel": Slider("kernel", kernel, 1, 15),
        "stride": Slider("stride", stride, 1, 8),
        "padding": Slider("padding", padding, 0, 7),
        "position": Slider("window position", 0, 0, 51_528),
        "in_channels": Slider("input channels", 3, 1, 512),
        "filters": Slider("filters", 64, 1, 512),
    }

    def draw(size: int, kernel: int, stride: int, padding: int, position: int, in_channels: int, filters: int) -> tuple:
        axes = plot_convolution(size, kernel, stride, padding, position, blank(1, 2, (9.6, 4.6)))
        with torch.device("meta"):  # only shapes, no weights
            layer = nn.Conv2d(in_channels, filters, kernel, stride, padding)
        how = arithmetic(layer, layer_table(layer, (in_channels, size, size)).iloc[0])
        costs = f"parameters: {how['params_k']}\nmultiply-adds: {how['flop_m']}\nmemory (KB): {how['memory_kb']}"
        return axes, f"{description(axes).text}\n{costs}"

    return Explorer(controls, draw)
