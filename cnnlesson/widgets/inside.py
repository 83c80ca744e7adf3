"""Inside a network: activation maps, the filters of its first layer, and receptive fields."""

import torch
import torchvision.transforms.v2.functional as transforms
from torch import nn

from cnnlesson.anatomy import evaluation_mode, find_layer, forward_hooks, layer_table, receptive_field
from cnnlesson.data import Batches, ImageSet
from cnnlesson.plots import description, plot_filters, plot_receptive_field
from cnnlesson.plots.figures import blank_mosaic
from cnnlesson.plots.pictures import map_text
from cnnlesson.widgets.explorer import Choice, Explorer, Slider


def explore_network(model: nn.Module, image_set: ImageSet, image_size: int) -> Explorer:
    """One channel of one layer's output for one image, and the pixels that its strongest activation depends on.

    Args:
        model: any network of the lesson, on any device; it is left unchanged.
        image_set: its images are resized to `image_size`.
        image_size: height and width in pixels of the network's input.
    """
    device = next(model.parameters()).device
    filters = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d)).weight
    table = layer_table(model, (3, image_size, image_size))
    controls = {
        "image": Slider("image", 0, 0, len(image_set) - 1),
        "layer": Choice("layer", list(table.index[table["out_size"].notna()])),  # those whose output is a map
        "channel": Slider("channel", 0, 0, int(table["out_channels"].max()) - 1),
    }

    def draw(image: int, layer: str, channel: int) -> tuple:
        one = image_set[torch.tensor([image])]
        maps = activations(model, layer, Batches(one, 1, image_size, device=device))  # (channels, H, W)
        if channel >= len(maps):
            raise ValueError(f"{layer} has {len(maps)} channels, 0 to {len(maps) - 1}: choose a smaller one")
        activation = maps[channel]
        row, column = divmod(int(activation.argmax()), activation.shape[1])
        field = receptive_field(model, layer, (3, image_size, image_size), row, column)
        resized = transforms.resize(one.images[0], [image_size, image_size])
        axes = blank_mosaic([["image", "map"], ["filters", "filters"]], (9.6, 6), height_ratios=[4, 1.4])
        plot_receptive_field(resized, field, activation, row, column, [axes["image"], axes["map"]])
        plot_filters(filters, axes["filters"]).set_title("all filters of the first layer")
        name = one.classes[one.labels[0]]
        text = f"image {image}, {name}; {layer}, channel {channel}: {map_text(activation)}"
        return axes.values(), f"{text}\n{description(axes.values()).text}"

    return Explorer(controls, draw)


@torch.no_grad()
def activations(model: nn.Module, layer: str, batches: Batches) -> torch.Tensor:
    """The output of `layer` for the first image of `batches`: (channels, H, W) on the CPU."""
    module, use = find_layer(model, layer)
    images, _ = next(iter(batches))
    outputs = []
    with forward_hooks([module], lambda module, inputs, output: outputs.append(output[0])), evaluation_mode(model):
        model(images)
    return outputs[use - 1].float().cpu()
