"""Give a student's network the weights of ours, so that both must give the same outputs."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.checks.verdict import Wrong

LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)

# What is done to logits that should be left alone, as functions of a right network and images.
LOGITS_MISTAKES = {
    "It ends in a softmax, but the loss takes logits: return what the last layer gives.": (
        lambda net, x: net(x).softmax(dim=1)
    ),
    "It ends in a log_softmax, but F.cross_entropy takes logits and does that itself.": (
        lambda net, x: net(x).log_softmax(dim=1)
    ),
    "There is a ReLU behind the last layer: logits may be negative.": lambda net, x: F.relu(net(x)),
}


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
    trace = trace_layers(model, images)
    if trace.error is not None:
        raise trace.error
    found: dict[tuple, list[nn.Module]] = {}
    for layer, maker, _ in trace.steps:
        if isinstance(layer, nn.Linear):
            key = ("fully-connected layer", layer.weight.shape)
        elif isinstance(layer, nn.Conv2d):
            key = ("convolution", layer.weight.shape)
        elif maker is not None:
            key = ("batch norm behind a convolution", maker.weight.shape)
        else:
            key = ("batch norm", layer.weight.shape)
        found.setdefault(key, []).append(layer)
    return found


class Step(NamedTuple):
    """A layer that ran."""

    layer: nn.Module
    maker: nn.Module | None  # the layer whose output it took, where nothing came between
    input: torch.Tensor

    @property
    def in_size(self) -> int:
        return self.input.shape[-1]


class Trace(NamedTuple):
    """The layers with weights in the order in which they ran, and what came out in the end."""

    steps: list[Step]
    output: object
    error: RuntimeError | None  # that ended the run, mostly of shapes that do not fit

    @property
    def convolutions(self) -> list[Step]:
        return [step for step in self.steps if isinstance(step.layer, nn.Conv2d)]

    @property
    def norms(self) -> list[Step]:
        return [step for step in self.steps if isinstance(step.layer, nn.BatchNorm2d)]


def trace_layers(model: nn.Module, images: torch.Tensor) -> Trace:
    """Run `model` on `images` without gradients; a run that a RuntimeError ended keeps what ran before it."""
    steps, makers, kept, output, error = [], {}, [], None, None

    def record(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        kept.append(output)  # so that no identity is given twice; a step keeps its input
        steps.append(Step(layer, makers.get(id(inputs[0])), inputs[0]))
        makers[id(output)] = layer

    handles = [layer.register_forward_hook(record) for layer in model.modules() if isinstance(layer, LAYERS)]
    try:
        with torch.no_grad():
            output = model(images.clone())
    except RuntimeError as raised:
        if isinstance(raised, NotImplementedError):
            raise
        error = raised
    finally:
        for handle in handles:
            handle.remove()
    return Trace(steps, output, error)


def near(given: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether outputs are the same but for rounding."""
    return given.shape == expected.shape and torch.allclose(given, expected, rtol=1e-3, atol=1e-4)
