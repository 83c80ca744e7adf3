"""How large the signals in a network are: gradients, activations, and F(x) beside x in each residual block."""

import copy
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.anatomy import evaluation_mode, forward_hooks
from cnnlesson.models import BasicBlock, Bottleneck
from cnnlesson.models.resnet import PlainBlock

if TYPE_CHECKING:
    import pandas as pd


def gradient_norms(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """The Euclidean norm of the loss's gradient with respect to the weights of each convolution and linear layer.

    Layers are in the order of `named_modules`, which in our networks is from the images to the logits. The model, its
    gradients and its running statistics are left unchanged.

    Args:
        model: returns logits (N, num_classes); on the same device as the images.
        images, labels: one batch, (N, 3, H, W) and (N,).
    """
    model = copy.deepcopy(model).train()
    model.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    return {
        name: float(layer.weight.grad.norm())
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


@torch.no_grad()
def activation_sizes(model: nn.Module, images: torch.Tensor) -> dict[str, float]:
    """The root mean square of the output of each convolution and linear layer, in training mode.

    Layers are in the order of `gradient_norms`; the value of one that never runs is NaN. The model and its running
    statistics are left unchanged.

    Args:
        model: on the same device as the images.
        images: one batch, (N, 3, H, W).
    """
    model = copy.deepcopy(model).train()  # a copy, since training mode updates the running statistics
    names = {layer: name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    sizes = dict.fromkeys(names.values(), float("nan"))

    def measure(layer: nn.Conv2d | nn.Linear, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        sizes[names[layer]] = root_mean_square(output)

    with forward_hooks(names, measure):
        model(images)
    return sizes


@torch.no_grad()
def residual_sizes(model: nn.Module, images: torch.Tensor) -> "pd.DataFrame":
    """How much each residual block of a network adds to its input: one row per block, from the images to the logits.

    Columns: block, the name; x_size, the size of the shortcut's output, which is x, or x brought to the new shape if
    the shape changes; residual_size, the size of F(x). A size is the root mean square over all images, channels and
    pixels, in evaluation mode. Compare figure 7 of He et al. (2015): the deeper the network, the less a block changes.

    Args:
        model: any network with blocks of type `cnnlesson.models.BasicBlock` or `Bottleneck`; it is left unchanged.
        images: (N, 3, H, W), normalised, on the model's device.

    Raises:
        ValueError: the model has no residual block.
    """
    import pandas as pd

    def measure(block: BasicBlock | Bottleneck, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        (x,) = inputs
        x_size, residual_size = root_mean_square(block.downsample(x)), root_mean_square(block.residual(x))
        rows.append({"block": names[block], "x_size": x_size, "residual_size": residual_size})

    rows = []
    names = {
        block: name
        for name, block in model.named_modules()
        if isinstance(block, BasicBlock | Bottleneck) and not isinstance(block, PlainBlock)
    }
    if not names:
        raise ValueError(f"{type(model).__name__} has no residual block: residual_sizes takes a residual network")
    with evaluation_mode(model), forward_hooks(names, measure):
        model(images)
    return pd.DataFrame(rows)


def root_mean_square(signal: torch.Tensor) -> float:
    return float(signal.square().mean().sqrt())
