"""What each layer of a network costs, and how the costs of the chosen layer follow from its shape."""

from collections.abc import Mapping

import pandas as pd
import torch
from torch import nn

from cnnlesson.anatomy import arithmetic, find_layer, layer_table
from cnnlesson.models import AlexNet, TwoTowerAlexNet, cifar_resnet, resnet18, resnet34, resnet50
from cnnlesson.plots import blank, plot_layers
from cnnlesson.widgets.explorer import Choice, Explorer, Slider

MAX_ROWS = 30  # of layers with a bar each; larger networks have a bar per block
COSTS = {"memory_kb": "memory (KB)", "params_k": "parameters (k)", "flop_m": "multiply-adds (M)"}
ARITHMETIC = {
    "out_size": "height and width of the output",
    "memory_kb": "memory (KB)",
    "params_k": "parameters",
    "flop_m": "multiply-adds",
}


def explore_layers(models: Mapping[str, nn.Module] | None = None) -> Explorer:
    """The layer table of each network, as bars and as text, and the arithmetic of one layer.

    Args:
        models: by name; by default the networks of the lesson, for 1000 classes.
    """
    models = models or lesson_networks()
    controls = {
        "name": Choice("network", list(models)),
        "size": Slider("input size", 227, 32, 256),
        "layer": Choice("layer", []),
    }

    def draw(name: str, size: int, layer: str | None) -> tuple:
        try:
            table = layer_table(models[name], (3, size, size))
        except ValueError as error:
            raise ValueError(f"{name} does not accept {size} pixels: choose another input size ({error})") from error
        shown = table.drop(index="total")
        layer = picked = controls["layer"].offer(list(shown.index))
        if len(shown) > MAX_ROWS:
            shown, picked = shown.groupby(_block, sort=False)[list(COSTS)].sum(), _block(layer)
        axes = plot_layers(shown, blank(1, 3, (9.6, 0.27 * len(shown) + 1), sharey=True), picked)
        costs = pd.concat([shown, table.loc[["total"]]])[list(COSTS)].astype(float).map("{:,.1f}".format)
        how = arithmetic(find_layer(models[name], layer)[0], table.loc[layer])
        lines = [f"  {label}: {how[column]}" for column, label in ARITHMETIC.items() if column in how]
        return axes, "\n".join([costs.rename(columns=COSTS).to_string(), f"\n{layer}:", *lines])

    return Explorer(controls, draw)


def lesson_networks() -> dict[str, nn.Module]:
    """The networks of the lesson by name, without memory for their weights, which are not needed here."""
    with torch.device("meta"):
        return {
            "AlexNet": AlexNet(1000, dropout=0.5),
            "AlexNet, two towers": TwoTowerAlexNet(1000),
            "ResNet-18": resnet18(1000),
            "ResNet-18 for small images": resnet18(1000, small_images=True),
            "ResNet-34": resnet34(1000),
            "ResNet-50": resnet50(1000),
            "ResNet-20 for CIFAR-10": cifar_resnet(20, 10),
            "plain network of 20 layers": cifar_resnet(20, 10, residual=False),
        }


def _block(layer: str) -> str:
    """layer1.0 for layer1.0.conv2."""
    return ".".join(layer.split(".")[:2])
