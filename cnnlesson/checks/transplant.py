"""Give a student's network the weights of ours, so that both must give the same outputs."""

import torch
from torch import nn

from cnnlesson.checks.verdict import Wrong

LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)


def copy_weights(source: nn.Module, target: nn.Module, images: torch.Tensor) -> None:
    """Copy the weights of each layer of `source` into the layer of `target` that does the same work.

    Names and the order of definition do not matter. Both models are run on `images`: convolutions and fully-connected
    layers with weights of one shape are matched in the order in which they run, and a batch norm belongs to the
    convolution whose output it takes.

    Raises:
        Wrong: the two have not the same layers; the message says which is missing, too many, or set otherwise.
    """
    ours, theirs = layers_in_use(source, images), layers_in_use(target, images)
    for key in {**ours, **theirs}:
        missing = len(ours.get(key, ())) - len(theirs.get(key, ()))
        if missing:
            kind, shape = key
            what = "is missing" if missing > 0 else "is too many"
            raise Wrong(
                f"A {kind} with weights of shape {tuple(shape)} {what}: compare with the figure, layer by layer."
            )
    for key, layers in ours.items():
        for layer, twin in zip(layers, theirs[key], strict=True):
            for setting in ("stride", "padding"):
                expected, found = getattr(layer, setting, None), getattr(twin, setting, None)
                if expected != found and not isinstance(found, str):  # padding may be "same"
                    raise Wrong(
                        f"The convolution with weights of shape {tuple(key[1])} has another {setting}, {found}."
                    )
            twin.load_state_dict(layer.state_dict(), strict=False)  # a bias that one of them lacks is told elsewhere


def layers_in_use(model: nn.Module, images: torch.Tensor) -> dict[tuple, list[nn.Module]]:
    """The layers with weights that `images` run through, by kind and shape of the weights, in running order."""
    found: dict[tuple, list[nn.Module]] = {}
    makers = {}  # the convolution that made a tensor, by the tensor's identity
    kept = []  # the tensors, so that no identity is given twice

    def record(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        kept.extend((inputs[0], output))
        if isinstance(layer, nn.BatchNorm2d):
            maker = makers.get(id(inputs[0]))
            key = (
                ("batch norm behind a convolution", maker.weight.shape) if maker else ("batch norm", layer.weight.shape)
            )
        else:
            key = ("fully-connected layer" if isinstance(layer, nn.Linear) else "convolution", layer.weight.shape)
        makers[id(output)] = layer
        found.setdefault(key, []).append(layer)

    handles = [layer.register_forward_hook(record) for layer in model.modules() if isinstance(layer, LAYERS)]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found
