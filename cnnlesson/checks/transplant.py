"""Compare a student's network with ours: with the same weights, both must return the same outputs."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.anatomy import forward_hooks
from cnnlesson.checks.verdict import Wrong, reject
from cnnlesson.models.resnet import CifarResNet

LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)

# What a network may do to its logits by mistake, as functions of a right network and images.
LOGITS_MISTAKES = {
    "It ends in a softmax, but F.cross_entropy takes logits.": lambda net, x: net(x).softmax(dim=1),
    "It ends in a log_softmax, but F.cross_entropy takes logits.": lambda net, x: net(x).log_softmax(dim=1),
    "It ends in a sigmoid, but F.cross_entropy takes logits.": lambda net, x: net(x).sigmoid(),
    "There is a ReLU after the last layer, but logits may be negative.": lambda net, x: F.relu(net(x)),
}


def as_module(answer: object, message: str = "It must be a class that inherits from nn.Module.") -> nn.Module:
    """The answer; raises `Wrong` unless it is a module that knows all of its layers."""
    if not isinstance(answer, nn.Module):
        raise Wrong(message)
    if type(answer).__module__.startswith("cnnlesson.models") and not isinstance(answer, CifarResNet):
        raise Wrong(f"It returns the package's own {type(answer).__name__}: write yours.")
    known = set(answer.modules())
    for module in known:
        for name, value in vars(module).items():
            if isinstance(value, list | tuple) and {one for one in value if isinstance(one, nn.Module)} - known:
                raise Wrong(f"self.{name} keeps layers in a list, which hides their parameters: use an nn.ModuleList.")
    return answer


def need_logits(output: object, num_classes: int) -> None:
    """Raise `Wrong` unless it is the output of a network with `num_classes` for two images."""
    if not isinstance(output, torch.Tensor) or output.dim() != 2 or len(output) != 2:
        raise Wrong("forward must return logits of shape (N, num_classes).")
    if output.shape[1] != num_classes:
        raise Wrong(f"With num_classes={num_classes} it returns {output.shape[1]} logits per image.")


def need_same_output(output: torch.Tensor, ours: nn.Module, x: torch.Tensor, mistakes: Mapping[str, Callable]) -> None:
    """Raise `Wrong` unless it is our output for x. `mistakes` maps messages to functions of our network and x."""
    if not near(output, ours(x)):
        reject(output, mistakes, near, ours, x)
        raise Wrong("With the same weights its outputs differ from ours: compare forward with the text above.")


def near(given: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether outputs are the same up to rounding."""
    return given.shape == expected.shape and torch.allclose(given, expected, rtol=1e-3, atol=1e-4)


class Step(NamedTuple):
    """A layer that ran."""

    layer: nn.Module
    source: nn.Module | None  # the layer whose output it received, if nothing came in between
    input: torch.Tensor


class Trace(NamedTuple):
    """The layers with weights, in the order in which they ran, and the result."""

    steps: list[Step]
    output: object
    error: RuntimeError | None  # that ended the run, usually because shapes do not fit

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        return [step.layer for step in self.steps if isinstance(step.layer, nn.Conv2d)]

    @property
    def norms(self) -> list[Step]:
        return [step for step in self.steps if isinstance(step.layer, nn.BatchNorm2d)]


def trace_layers(model: nn.Module, images: torch.Tensor) -> Trace:
    """Run `model` on `images` without gradients. If a RuntimeError ends the run, the trace is what ran before it."""
    steps, output, error = [], None, None

    def record(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        steps.append(Step(layer, getattr(inputs[0], "source", None), inputs[0]))
        output.source = layer

    layers = [layer for layer in model.modules() if isinstance(layer, LAYERS)]
    try:
        with forward_hooks(layers, record), torch.no_grad():
            output = model(images.clone())
    except NotImplementedError:
        raise
    except RuntimeError as raised:
        error = raised
    return Trace(steps, output, error)


def copy_weights(source: nn.Module, target: nn.Module, images: torch.Tensor) -> None:
    """Copy the weights of each layer of `source` to the layer of `target` that does the same.

    Both run on `images`. Layers with weights of the same shape are matched in running order, whatever their names; a
    batch norm belongs to the convolution whose output it receives. Raises `Wrong` if a layer is missing, not expected
    or set differently.
    """
    ours, theirs = _layers_by_shape(source, images), _layers_by_shape(target, images)
    for kind, shape in ours | theirs:
        missing = len(ours.get((kind, shape), ())) - len(theirs.get((kind, shape), ()))
        if missing:
            problem = "is missing" if missing > 0 else "should not be there"
            raise Wrong(f"A {kind} with weights of shape {tuple(shape)} {problem}: compare with the figure.")
    for (kind, shape), layers in ours.items():
        for layer, twin in zip(layers, theirs[kind, shape], strict=True):
            for setting in ("stride", "padding"):
                expected, found = getattr(layer, setting, None), getattr(twin, setting, None)
                if expected != found and not isinstance(found, str):  # padding may be "same"
                    raise Wrong(f"The {kind} with weights of shape {tuple(shape)} should not have {setting} {found}.")
            twin.load_state_dict(layer.state_dict(), strict=False)  # other checks report biases


def _layers_by_shape(model: nn.Module, images: torch.Tensor) -> dict[tuple, list[nn.Module]]:
    """The layers that `images` pass through, by kind and shape of the weights, in running order."""
    trace = trace_layers(model, images)
    if trace.error is not None:
        raise trace.error
    found: dict[tuple, list[nn.Module]] = {}
    for layer, source, _ in trace.steps:
        kind, shape = "batch norm", layer.weight.shape
        if isinstance(layer, nn.Linear):
            kind = "fully-connected layer"
        elif isinstance(layer, nn.Conv2d):
            kind = "convolution"
        elif source is not None:
            kind, shape = "batch norm after a convolution", source.weight.shape
        found.setdefault((kind, shape), []).append(layer)
    return found
