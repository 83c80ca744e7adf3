"""Checks of lesson 2, AlexNet."""

import math
from collections.abc import Callable
from functools import partial
from numbers import Real

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.checks import verdict
from cnnlesson.checks.transplant import (
    LOGITS_MISTAKES,
    Step,
    as_module,
    copy_weights,
    near,
    need_logits,
    need_same_output,
    trace_layers,
)
from cnnlesson.checks.verdict import Wrong, exercise, expect, filled_in, plain, reject, same_integer
from cnnlesson.models import AlexNet
from cnnlesson.reference.audit import SLIDE, audit_slide

progress = partial(verdict.progress, __name__)

OWN_VERSIONS = {"conv_output_size": lambda size, kernel, stride, padding: (size + 2 * padding - kernel) // stride + 1}


@exercise
def conv_output_size(answer: Callable) -> None:
    """(size, kernel, stride, padding) -> the height and width of a convolution's output, an int."""
    # AlexNet's layers, and some that tell apart mistakes in rounding, stride and padding.
    cases = [(227, 11, 4, 2), (27, 5, 1, 2), (13, 3, 1, 1), (56, 3, 4, 0), (7, 3, 2, 1), (8, 3, 4, 0), (10, 3, 4, 0)]
    size, kernel, stride, padding = np.array(cases).T
    room = size + 2 * padding - kernel
    right = room // stride + 1
    mistakes = {
        "It rounds up, but a window that does not fit is left out: round down.": -(-room // stride) + 1,
        "It does not round down, but only whole windows count. Python's // divides and rounds.": room / stride + 1,
        "It returns a float, such as 56.0, but a size is an integer. Python's // does both.": right.astype(float),
        "It rounds to the nearest integer: round down.": np.rint(room / stride + 1).astype(int),
        "The padding is counted once, but it is added on both sides.": (size + padding - kernel) // stride + 1,
        "The padding is not used.": (size - kernel) // stride + 1,
        "The first window is not counted: there is one even if it has no room to move.": room // stride,
        "The stride is not used.": room + 1,
        "The kernel size is not subtracted: the window must stay inside the image.": (size + 2 * padding) // stride,
        "The 1 for the first window is added before dividing by the stride: add it afterwards.": (room + 1) // stride,
    }
    expect(answer, cases, right, mistakes, same=same_integer)


@exercise
def conv_cost(answer: Callable) -> None:
    """(in_channels, in_size, filters, kernel, stride, padding) -> (memory in KB, parameters, multiply-adds)."""
    cases = [(3, 227, 64, 11, 4, 2), (64, 27, 192, 5, 1, 2), (192, 13, 384, 3, 1, 1), (5, 9, 7, 3, 2, 0)]
    in_channels, in_size, filters, kernel, stride, padding = np.array(cases).T
    positions = ((in_size + 2 * padding - kernel) // stride + 1) ** 2
    memory = filters * positions * 4 / 1024
    weights = filters * in_channels * kernel**2
    parameters = weights + filters
    multiply_adds = weights * positions
    results = [plain(answer(*case)) for case in cases]
    if any(not isinstance(result, tuple | list) or len(result) != 3 for result in results):
        raise Wrong("It must return three numbers: return memory_kb, parameters, multiply_adds")
    memories, counts, products = zip(*results, strict=True)
    memory_mistakes = {
        "The memory is that of the input: the slide counts the output.": in_channels * in_size**2 * 4 / 1024,
        "The memory is in units of 1000 bytes: on the slide, a KB has 1024.": memory * 1.024,
        "The memory is in bytes: divide by 1024 for KB.": memory * 1024,
        "The memory counts numbers: each is a float32 of 4 bytes.": memory / 4,
        "The memory counts numbers, not KB: each is a float32 of 4 bytes, and a KB has 1024.": memory * 256,
    }
    expect(memories, cases, memory, memory_mistakes, same=_close, name="The memory in conv_cost")
    parameter_mistakes = {
        "The biases are not among the parameters: there is one per filter.": weights,
        "The parameters include one bias for the whole layer: there is one per filter.": weights + 1,
        "Each filter covers all input channels: the parameters lack that factor.": filters * kernel**2 + filters,
        "The parameters are in thousands: return their number.": parameters / 1000,
    }
    expect(counts, cases, parameters, parameter_mistakes, same=_close, name="The number of parameters in conv_cost")
    multiply_add_mistakes = {
        "The multiply-adds are doubled: a multiplication with its addition counts as one.": 2 * multiply_adds,
        "The multiply-adds are counted per pixel of the input, not of the output.": weights * in_size**2,
        "The multiply-adds include the biases: the slide's rule leaves them out.": parameters * positions,
        "The multiply-adds are those of one position: the filters are applied at each pixel of the output.": weights,
        "Each filter covers all input channels: the multiply-adds lack that factor.": multiply_adds // in_channels,
        "The multiply-adds are in millions: return their number.": multiply_adds / 1e6,
    }
    expect(products, cases, multiply_adds, multiply_add_mistakes, same=_close, name="The multiply-adds in conv_cost")


@exercise
def missing_rows(answer: dict) -> None:
    """The slide's rows for fc6, fc7 and fc8: layer -> (memory in KB, parameters in thousands, multiply-adds in M)."""
    layers = {"fc6": (9216, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)}
    rows = filled_in(answer, layers)
    for layer, (inputs, outputs) in layers.items():
        row, weights = rows[layer], inputs * outputs
        if not isinstance(row, tuple | list) or len(row) != 3 or not all(isinstance(x, Real) for x in row):
            raise Wrong(f"The row of {layer} must be three numbers: memory in KB, parameters in k, flop in M.")
        exact = (outputs * 4 / 1024, (weights + outputs) / 1000, weights / 1e6)
        mistakes = {
            "memory": {
                "is that of its input: the column counts the output of the layer": inputs * 4 / 1024,
                "counts numbers, not KB: each is a float32 of 4 bytes, and a KB has 1024": outputs,
                "is in bytes: a KB has 1024": outputs * 4,
            },
            "number of parameters": {
                "lacks the biases: there is one per output": weights / 1000,
                "has one bias per input: there is one per output": (weights + inputs) / 1000,
                "is not in thousands": weights + outputs,
                "is that of 256 inputs: flatten turns the 256 maps of 6×6 into 9216": (256 + 1) * outputs / 1000,
            },
            "flop": {
                "is doubled: a multiplication with its addition counts as one": 2 * weights / 1e6,
                "is not in millions": weights,
                "is in thousands: the column is in millions": weights / 1000,
            },
        }
        for given, right, column in zip(row, exact, mistakes, strict=True):
            if not _fits(given, right):
                cell = f"{layer}'s {column}"
                reject(given, {f"{cell} {text}.": value for text, value in mistakes[column].items()}, _fits)
                raise Wrong(f"{cell} cannot be {given:g}: compute it from the number of inputs and outputs.")


def _fits(given: Real, exact: float) -> bool:
    """Whether a figure is exact, rounded to one decimal, or rounded to an integer as on the slide."""
    return given == round(exact) or abs(given - exact) <= 0.051


@exercise
def erratum(answer: tuple) -> None:
    """The cell of the slide's table that does not follow from its own rule: (layer, column)."""
    columns = {"memory": "memory_kb", "params": "params_k", "flop": "flop_m", "size": "out_size"}
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong('Name the cell as (layer, column), such as ("conv1", "memory").')
    layer, column = (part.strip().lower() if isinstance(part, str) else part for part in answer)
    if layer not in SLIDE:
        raise Wrong(f"The slide has no layer {layer!r}: choose one of {', '.join(SLIDE)}.")
    if column not in columns:
        raise Wrong(f"You cannot choose the column {column!r}: choose one of {', '.join(columns)}.")
    audit = audit_slide()
    if (layer, columns[column]) not in audit.index:
        raise Wrong(f"That cell of the slide is empty: {layer} has no {column}.")
    row = audit.loc[layer, columns[column]]
    if row["agrees"]:
        raise Wrong(f"{layer}'s {column}, {row['published']} on the slide, follows from the rule: {row['arithmetic']}.")


@exercise
def grouped_parameters(answer: Callable) -> None:
    """(in_channels, filters, kernel, groups) -> the number of parameters of a grouped convolution, biases included."""
    cases = [(96, 256, 5, 2), (256, 384, 3, 1), (384, 256, 3, 2), (8, 12, 3, 4)]
    in_channels, filters, kernel, groups = np.array(cases).T
    weights = filters * (in_channels // groups) * kernel**2
    mistakes = {
        "The groups are not used: a filter sees only the channels of its own group.": weights * groups + filters,
        "The biases are missing: there is one per filter.": weights,
        "The biases are divided by the number of groups, but every filter has one.": weights + filters // groups,
        "That is one group: there are more with the same number of parameters.": (weights + filters) // groups,
        "The filters are divided by the number of groups, but those of all groups count.": weights // groups + filters,
        "It multiplies by the number of groups: grouping makes a convolution smaller.": weights * groups**2 + filters,
        "A filter has kernel × kernel pixels: the factor kernel is there only once.": weights // kernel + filters,
        "It returns a float, such as 307.0, but a number of parameters is an integer: use //.": weights * 1.0 + filters,
        "A filter sees in_channels / groups channels: that factor is missing.": filters * kernel**2 + filters,
    }
    expect(answer, cases, weights + filters, mistakes, same=same_integer)


@exercise
def StudentAlexNet(answer: Callable) -> None:  # noqa: N802, named as the answer is
    """StudentAlexNet(num_classes): the layers of the slide's table; returns logits (N, num_classes)."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 227, 227)
    theirs = as_module(answer(num_classes=7)).eval()
    need_logits(theirs(images), num_classes=7)
    ours = AlexNet(num_classes=7, dropout=0.5).eval()
    copy_weights(ours, theirs, images)
    found, expected = (sum(parameter.numel() for parameter in net.parameters()) for net in (theirs, ours))
    if found != expected:
        raise Wrong("The number of parameters differs: does a layer lack its bias, or is one defined but never used?")

    with torch.no_grad():
        logits = theirs(images)
        if not near(logits, theirs(images)):
            raise Wrong("In evaluation mode two passes differ: is F.dropout called without self.training?")
        need_same_output(logits, ours, images, ALEXNET_MISTAKES)
        theirs.train()
        if near(theirs(images), theirs(images)):
            raise Wrong("In training mode two passes are equal: dropout before fc6 and fc7 is missing.")
        _need_dropout(theirs, images)


def _need_dropout(model: nn.Module, images: torch.Tensor) -> None:
    """Raise `Wrong` unless half of the inputs of fc6 and fc7 are dropped in training mode, and nothing else is."""

    def inputs(mode: bool) -> list[Step]:
        return [step for step in trace_layers(model.train(mode), images).steps if isinstance(step.layer, nn.Linear)]

    before = inputs(False)[0].input.flatten(1)  # the maps, which no dropout has changed
    for name, strength, step in zip(("fc6", "fc7", "fc8"), (0.5, 0.5, 0), inputs(True), strict=True):
        given = step.input.flatten(1)
        kept, passed_on = given != 0, before != 0
        dropped = 1 - float(kept[passed_on].float().mean())
        if abs(dropped - strength) > 0.1:
            expected = f"{strength:.0%}" if strength else "none"
            raise Wrong(f"In training mode {dropped:.0%} of the inputs of {name} are dropped, not {expected}.")
        if not near(given[kept], before[kept] / (1 - strength)):
            raise Wrong(f"In training mode the inputs of {name} change more than by dropout: is there another one?")
        before = F.relu(step.layer(given))


def _alexnet(net: AlexNet, x: torch.Tensor, conv_relu=F.relu, fc_relu=F.relu, pool=F.max_pool2d) -> torch.Tensor:
    """AlexNet in evaluation mode, with other functions in some places."""
    x = pool(conv_relu(net.conv1(x)), 3, 2)
    x = pool(conv_relu(net.conv2(x)), 3, 2)
    x = conv_relu(net.conv4(conv_relu(net.conv3(x))))
    x = pool(conv_relu(net.conv5(x)), 3, 2).flatten(1)
    return net.fc8(fc_relu(net.fc7(fc_relu(net.fc6(x)))))


ALEXNET_MISTAKES = LOGITS_MISTAKES | {
    "There is no ReLU after the convolutions.": partial(_alexnet, conv_relu=nn.Identity()),
    "There is no ReLU between the fully-connected layers.": partial(_alexnet, fc_relu=nn.Identity()),
    "There is no ReLU at all.": partial(_alexnet, conv_relu=nn.Identity(), fc_relu=nn.Identity()),
    "It uses average pooling: AlexNet takes the largest value of each window.": partial(_alexnet, pool=F.avg_pool2d),
    "It uses tanh: the paper's point is ReLU.": partial(_alexnet, conv_relu=torch.tanh, fc_relu=torch.tanh),
}


@exercise
def initial_loss(answer: Callable) -> None:
    """num_classes -> the cross-entropy, in nats, of a network that cannot tell the classes apart yet."""
    n = np.array([10, 200, 1000, 2])
    mistakes = {
        "It is the loss for 10 classes, whatever the argument: use num_classes.": np.full(4, math.log(10)),
        "It is the loss for 1000 classes, whatever the argument: use num_classes.": np.full(4, math.log(1000)),
        "The logarithm has base 2: cross-entropy in torch is in nats, with the natural logarithm.": np.log2(n),
        "The logarithm has base 10: cross-entropy in torch is in nats, with the natural logarithm.": np.log10(n),
        "It is negative: the loss is minus the logarithm of a probability below 1.": -np.log(n),
        "That is the probability of the correct class: the loss is minus its logarithm.": 1 / n,
        "That is the probability of a wrong guess: the loss is minus the logarithm of the correct class's.": 1 - 1 / n,
        "All logits are 0, and the softmax makes them equal probabilities: the loss is not 0.": 0.0 * n,
        "It is the logarithm of num_classes - 1: the correct class is one of the classes.": np.log(n - 1),
        "That is the number of classes: the loss is minus the logarithm of the correct class's probability.": n,
    }
    expect(answer, [(10,), (200,), (1000,), (2,)], np.log(n), mistakes, same=_close)


def _close(given: object, expected: float) -> bool:
    return isinstance(given, Real | torch.Tensor) and math.isclose(float(given), float(expected), rel_tol=1e-4)
