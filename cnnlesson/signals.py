"""How large the signals in a network are: what each layer gives, its gradient, and F(x) beside x in each block."""

import copy
import functools
import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.models import BasicBlock, Bottleneck
from cnnlesson.models.resnet import PlainBlock

if TYPE_CHECKING:
    import pandas as pd


def gradient_norms(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """The Euclidean norm of the loss's gradient at the weights of each convolution and fully-connected layer.

    Layers are in the order in which the model holds them, which for ours is the way from the images to the logits.
    The model, its gradients and its running statistics stay as they are.

    Args:
        model: on the device of the images; its output is logits (N, num_classes).
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
    """The root mean square of what each convolution and fully-connected layer gives, in training mode.

    Layers are in the order of `gradient_norms`. The model and its running statistics stay as they are.

    Args:
        model: on the device of the images.
        images: one batch, (N, 3, H, W).
    """
    model = copy.deepcopy(model).train()
    sizes = {name: math.nan for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}

    def measure(name: str, layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        sizes[name] = float(output.square().mean().sqrt())

    for name in sizes:
        model.get_submodule(name).register_forward_hook(functools.partial(measure, name))
    model(images)
    return sizes


@torch.no_grad()
def residual_sizes(model: nn.Module, images: torch.Tensor) -> "pd.DataFrame":
    """How much each residual block of a network adds to what it receives: a row a block, from the images on.

    Columns: block, its name; x_size, of what the shortcut carries, which is x or, where the shape changes, x brought
    to the new shape; residual_size, of F(x). A size is the root mean square over all images, channels and pixels, in
    evaluation mode. He et al. (2015) show the like in figure 7: the deeper the network, the less each block changes.

    Args:
        model: any network with blocks of `cnnlesson.models.BasicBlock` or `Bottleneck`; it stays as it is.
        images: (N, 3, H, W), normalised, on the model's device.

    Raises:
        ValueError: the model has no residual block.
    """
    import pandas as pd

    model = copy.deepcopy(model).eval()
    rows = []

    def measure(block: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        (x,) = inputs
        x_size, residual_size = (
            float(signal.square().mean().sqrt()) for signal in (block.downsample(x), block.residual(x))
        )
        rows.append({"block": names[block], "x_size": x_size, "residual_size": residual_size})

    names = {
        block: name
        for name, block in model.named_modules()
        if isinstance(block, BasicBlock | Bottleneck) and not isinstance(block, PlainBlock)
    }
    if not names:
        raise ValueError(f"{type(model).__name__} has no residual block: residual_sizes takes a residual network")
    for block in names:
        block.register_forward_pre_hook(measure)
    model(images)
    return pd.DataFrame(rows)
