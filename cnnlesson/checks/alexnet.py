"""Checks of lesson 2, AlexNet."""

import math
from collections.abc import Callable
from functools import partial
from numbers import Real

import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.checks import verdict
from cnnlesson.checks.transplant import LOGITS_MISTAKES, copy_weights, near
from cnnlesson.checks.verdict import Unanswered, Wrong, exercise, expect, same_whole_number
from cnnlesson.models import AlexNet
from cnnlesson.reference.audit import SLIDE, audit_slide

progress = partial(verdict.progress, __name__)

# (size, kernel, stride, padding): AlexNet's layers, and some where rounding, stride and padding show.
CONVOLUTIONS = [(227, 11, 4, 2), (27, 5, 1, 2), (13, 3, 1, 1), (56, 3, 2, 0), (7, 3, 2, 1), (8, 3, 2, 0), (32, 3, 4, 0)]


@exercise
def conv_output_size(answer: Callable) -> None:
    """The height and width that a convolution gives: (size, kernel, stride, padding) -> int."""

    def right(size: int, kernel: int, stride: int, padding: int) -> int:
        image = torch.empty(1, 1, size, size, device="meta")
        return nn.Conv2d(1, 1, kernel, stride, padding, device="meta")(image).shape[-1]

    mistakes = {
        "It rounds up. A window that does not fit whole is left out: round down.": (
            lambda size, kernel, stride, padding: math.ceil((size + 2 * padding - kernel) / stride) + 1
        ),
        "It does not round down: a size is a whole number of windows. Python's // does both.": (
            lambda size, kernel, stride, padding: (size + 2 * padding - kernel) / stride + 1
        ),
        "It gives a float, such as 56.0: a size is a whole number. Python's // does both.": (
            lambda size, kernel, stride, padding: float((size + 2 * padding - kernel) // stride + 1)
        ),
        "It rounds to the nearest number. A window that does not fit whole is left out: round down.": (
            lambda size, kernel, stride, padding: round((size + 2 * padding - kernel) / stride + 1)
        ),
        "The padding is counted once, but it is added on both sides.": (
            lambda size, kernel, stride, padding: (size + padding - kernel) // stride + 1
        ),
        "The padding is not used.": lambda size, kernel, stride, padding: (size - kernel) // stride + 1,
        "The first window is not counted: with no room to move there is still one.": (
            lambda size, kernel, stride, padding: (size + 2 * padding - kernel) // stride
        ),
        "The stride is not used.": lambda size, kernel, stride, padding: size + 2 * padding - kernel + 1,
        "The kernel's own width is not taken off: the window must stay inside the image.": (
            lambda size, kernel, stride, padding: (size + 2 * padding) // stride
        ),
        "The 1 for the first window is added before dividing by the stride; it belongs behind the division.": (
            lambda size, kernel, stride, padding: (size + 2 * padding - kernel + 1) // stride
        ),
    }
    expect(answer, CONVOLUTIONS, right, mistakes, same=same_whole_number)


@exercise
def conv_cost(answer: Callable) -> None:
    """(in_channels, in_size, filters, kernel, stride, padding) -> (memory in KB, parameters, multiply-adds)."""
    cases = [(3, 227, 64, 11, 4, 2), (64, 27, 192, 5, 1, 2), (192, 13, 384, 3, 1, 1), (5, 9, 7, 3, 2, 0)]
    for case in cases:
        figures = answer(*case)
        if not isinstance(figures, tuple | list) or len(figures) != 3:
            raise Wrong("It must return three numbers: return memory_kb, parameters, multiply_adds")

    def layer(in_channels: int, in_size: int, filters: int, kernel: int, stride: int, padding: int) -> tuple:
        convolution = nn.Conv2d(in_channels, filters, kernel, stride, padding, device="meta")
        return convolution, convolution(torch.empty(1, in_channels, in_size, in_size, device="meta"))[0]

    def memory(*case: int) -> float:
        return layer(*case)[1].nbytes / 1024

    def parameters(*case: int) -> int:
        return sum(parameter.numel() for parameter in layer(*case)[0].parameters())

    def multiply_adds(*case: int) -> int:
        convolution, output = layer(*case)
        return convolution.weight.numel() * output[0].numel()

    memory_mistakes = {
        "The memory is that of the input: the slide counts the output, filters × height × width.": (
            lambda in_channels, in_size, *_: in_channels * in_size**2 * 4 / 1024
        ),
        "The memory is in units of 1000 bytes: the slide's KB has 1024.": lambda *case: memory(*case) * 1.024,
        "The memory is in bytes: divide by 1024 for KB.": lambda *case: memory(*case) * 1024,
        "The memory counts numbers: each is a float32 of 4 bytes.": lambda *case: memory(*case) / 4,
        "The memory counts numbers, not KB: each is a float32 of 4 bytes, and a KB has 1024.": (
            lambda *case: memory(*case) * 256
        ),
        "The memory is that of one filter's map: there is a map for each filter.": (
            lambda *case: memory(*case) / case[2]
        ),
        "The memory is that of the weights: the slide's column counts what comes out of the layer.": (
            lambda *case: parameters(*case) * 4 / 1024
        ),
    }
    parameter_mistakes = {
        "The biases are not among the parameters: there is one for each filter.": (
            lambda *case: parameters(*case) - case[2]
        ),
        "The parameters have one bias for the whole layer: there is one for each filter.": (
            lambda *case: parameters(*case) - case[2] + 1
        ),
        "Each filter looks at all input channels: the parameters lack that factor.": (
            lambda in_channels, in_size, filters, kernel, *_: filters * kernel**2 + filters
        ),
        "A filter is kernel × kernel pixels large: the parameters have kernel only once.": (
            lambda in_channels, in_size, filters, kernel, *_: filters * in_channels * kernel + filters
        ),
        "The parameters are in thousands: return their number.": lambda *case: parameters(*case) / 1000,
    }
    work_mistakes = {
        "The work is doubled: one multiplication with its addition counts as one.": (
            lambda *case: 2 * multiply_adds(*case)
        ),
        "The work is counted for each pixel of the input: a filter is applied once for each pixel of the output.": (
            lambda in_channels, in_size, filters, kernel, *_: filters * in_channels * kernel**2 * in_size**2
        ),
        "The work has the biases in it: the slide's rule leaves them out.": (
            lambda *case: parameters(*case) * layer(*case)[1][0].numel()
        ),
        "The work is that of one position: the filters are applied at each pixel of the output.": (
            lambda in_channels, in_size, filters, kernel, *_: filters * in_channels * kernel**2
        ),
        "Each filter looks at all input channels: the work lacks that factor.": (
            lambda *case: multiply_adds(*case) // case[0]
        ),
        "The work is in millions: return the number of multiply-adds.": lambda *case: multiply_adds(*case) / 1e6,
    }
    parts = [(memory, memory_mistakes), (parameters, parameter_mistakes), (multiply_adds, work_mistakes)]
    for place, (right, mistakes) in enumerate(parts):

        def one_figure(*case: int, place: int = place) -> float:
            return answer(*case)[place]

        one_figure.__name__ = f"{('the memory', 'the number of parameters', 'the work')[place]} in conv_cost"
        expect(one_figure, cases, right, mistakes, same=_close)


@exercise
def missing_rows(answer: dict) -> None:
    """The slide's rows for fc6, fc7 and fc8: layer -> (memory in KB, parameters in thousands, multiply-adds in M)."""
    layers = {"fc6": (9216, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)}
    if not isinstance(answer, dict) or set(answer) != set(layers):
        raise Wrong("It must be a dict with the keys 'fc6', 'fc7' and 'fc8'.")
    for name, (inputs, outputs) in layers.items():
        row = answer[name]
        if row is None or row is ... or (isinstance(row, tuple | list) and any(x is None or x is ... for x in row)):
            raise Unanswered(f"The row of {name} is still empty.")
        if not isinstance(row, tuple | list) or len(row) != 3 or not all(isinstance(x, Real) for x in row):
            raise Wrong(f"The row of {name} must be three numbers: memory in KB, parameters in k, flop in M.")
        memory, parameters, work = row
        weights = inputs * outputs
        _one_figure(
            f"{name}'s memory",
            memory,
            outputs * 4 / 1024,
            {
                "is that of its input: the column counts what comes out of the layer": inputs * 4 / 1024,
                "counts numbers, not KB: each is a float32 of 4 bytes, and a KB has 1024": outputs,
                "is in bytes: a KB has 1024": outputs * 4,
                "is that of its weights: the column counts what comes out of the layer": weights * 4 / 1024,
            },
        )
        _one_figure(
            f"{name}'s number of parameters",
            parameters,
            (weights + outputs) / 1000,
            {
                "lacks the biases: there is one for each output": weights / 1000,
                "has a bias for each input: there is one for each output": (weights + inputs) / 1000,
                "is not in thousands": weights + outputs,
                "is that of 256 inputs: flatten turns the 256 maps of 6×6 into 9216": (256 + 1) * outputs / 1000,
                "is that of one 256·6 row of each map: flatten keeps all 256·6·6": (256 * 6 + 1) * outputs / 1000,
            },
        )
        _one_figure(
            f"{name}'s work",
            work,
            weights / 1e6,
            {
                "is doubled: one multiplication with its addition counts as one": 2 * weights / 1e6,
                "is not in millions": weights,
                "is in thousands: the column has millions": weights / 1000,
                "is 0, but only pooling and flatten cost nothing: each output is a sum over all inputs": 0,
            },
        )


def _one_figure(name: str, given: Real, exact: float, mistakes: dict[str, float]) -> None:
    """The exact figure will do, and one rounded to a whole number, as the slide has it, or to one digit."""

    def fits(value: float) -> bool:
        return given == round(value) or abs(given - value) <= 0.051  # or rounded to one digit

    if fits(exact):
        return
    for mistake, value in mistakes.items():
        if fits(value):
            raise Wrong(f"{name} {mistake}.")
    raise Wrong(f"{name} cannot be {given:g}: work it out from the sizes of the layer's input and output.")


@exercise
def erratum(answer: tuple) -> None:
    """The cell of the slide's table that does not follow from its own rule: (layer, column)."""
    columns = {"memory": "memory_kb", "params": "params_k", "flop": "flop_m", "size": "out_size"}
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong('Name the cell as (layer, column), such as ("conv1", "memory").')
    layer, column = (part.strip().lower() if isinstance(part, str) else part for part in answer)
    if layer not in SLIDE:
        raise Wrong(f"{layer!r} is no layer of the slide: choose one of {', '.join(SLIDE)}.")
    if column not in columns:
        raise Wrong(f"{column!r} is no column to check: choose one of {', '.join(columns)}.")
    audit = audit_slide()
    cell = (layer, columns[column])
    if cell not in audit.index:
        raise Wrong(f"The slide has no figure there: {layer} has no {column}.")
    row = audit.loc[cell]
    if row["agrees"]:
        raise Wrong(
            f"{layer}'s {column} follows from the rule: {row['arithmetic']}; the slide has {row['published']}. "
            "Work out the others in the same way."
        )


@exercise
def grouped_parameters(answer: Callable) -> None:
    """(in_channels, filters, kernel, groups) -> the number of parameters of a grouped convolution, biases too."""

    def right(in_channels: int, filters: int, kernel: int, groups: int) -> int:
        convolution = nn.Conv2d(in_channels, filters, kernel, groups=groups, device="meta")
        return sum(parameter.numel() for parameter in convolution.parameters())

    mistakes = {
        "The groups are not used: a filter sees the channels of its own group alone.": (
            lambda in_channels, filters, kernel, groups: filters * in_channels * kernel**2 + filters
        ),
        "The biases are missing: there is one for each filter.": (
            lambda in_channels, filters, kernel, groups: filters * in_channels // groups * kernel**2
        ),
        "The biases are divided by the groups too: there is one for each filter of every group.": (
            lambda in_channels, filters, kernel, groups: (filters * in_channels * kernel**2 + filters) // groups
        ),
        "That is one group alone: there are as many more with the same number of parameters.": (
            lambda in_channels, filters, kernel, groups: (
                (filters // groups) * (in_channels // groups) * kernel**2 + filters // groups
            )
        ),
        "Channels and filters are both divided by the groups, but all groups' filters count.": (
            lambda in_channels, filters, kernel, groups: (
                (filters // groups) * (in_channels // groups) * kernel**2 + filters
            )
        ),
        "It multiplies by the groups: grouping makes a convolution smaller.": (
            lambda in_channels, filters, kernel, groups: filters * in_channels * groups * kernel**2 + filters
        ),
        "A filter is kernel × kernel pixels large: kernel stands there only once.": (
            lambda in_channels, filters, kernel, groups: filters * in_channels // groups * kernel + filters
        ),
        "It gives a float, such as 307.0: a number of parameters is whole. Use // to divide.": (
            lambda in_channels, filters, kernel, groups: filters * in_channels / groups * kernel**2 + filters
        ),
        "A filter sees in_channels / groups channels: that factor is missing.": (
            lambda in_channels, filters, kernel, groups: filters * kernel**2 + filters
        ),
    }
    cases = [(96, 256, 5, 2), (256, 384, 3, 1), (384, 256, 3, 2), (8, 12, 3, 4)]
    expect(answer, cases, right, mistakes, same=same_whole_number)


@exercise
def StudentAlexNet(answer: Callable) -> None:  # noqa: N802, named as the answer is
    """StudentAlexNet(num_classes): the layers of the slide's table, logits (N, num_classes) of images."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 227, 227)
    theirs = answer(num_classes=7)
    if not isinstance(theirs, nn.Module):
        raise Wrong("It must be a class that inherits from nn.Module.")
    logits = theirs.eval()(images)
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != 2:
        raise Wrong("forward must return logits of shape (N, num_classes).")
    if logits.shape[1] != 7:
        raise Wrong(
            f"With num_classes=7 an image gets {logits.shape[1]} logits: the last layer must have num_classes outputs."
        )
    ours = AlexNet(num_classes=7, dropout=0.5).eval()
    copy_weights(ours, theirs, images)
    if sum(p.numel() for p in theirs.parameters()) != sum(p.numel() for p in ours.parameters()):
        raise Wrong("The number of parameters differs: does a layer lack its bias, or is one defined and never used?")

    with torch.no_grad():
        logits = theirs(images)
        if not near(logits, theirs(images)):
            raise Wrong("In evaluation mode two passes differ: is dropout called as F.dropout without self.training?")
        if not near(logits, ours(images)):
            for message, forward in ALEXNET_MISTAKES.items():
                if near(logits, forward(ours, images)):
                    raise Wrong(message)
            raise Wrong(
                "With the same weights its logits differ from AlexNet's: compare forward with the slide's table."
            )
        theirs.train()
        if near(theirs(images), theirs(images)):
            raise Wrong("In training mode two passes are equal: dropout before fc6 and fc7 is missing.")


def _alexnet(
    net: AlexNet,
    x: torch.Tensor,
    conv_relu: Callable = F.relu,
    fc_relu: Callable = F.relu,
    pool: Callable = F.max_pool2d,
) -> torch.Tensor:
    """AlexNet in evaluation mode, with other functions in places."""
    x = pool(conv_relu(net.conv1(x)), 3, 2)
    x = pool(conv_relu(net.conv2(x)), 3, 2)
    x = conv_relu(net.conv4(conv_relu(net.conv3(x))))
    x = pool(conv_relu(net.conv5(x)), 3, 2).flatten(1)
    return net.fc8(fc_relu(net.fc7(fc_relu(net.fc6(x)))))


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


ALEXNET_MISTAKES = LOGITS_MISTAKES | {
    "There is no ReLU behind the convolutions.": partial(_alexnet, conv_relu=_same),
    "There is no ReLU between the fully-connected layers.": partial(_alexnet, fc_relu=_same),
    "There is no ReLU at all: without it eight layers are no more than one.": (
        partial(_alexnet, conv_relu=_same, fc_relu=_same)
    ),
    "It pools by the mean: AlexNet takes the largest value of each window.": partial(_alexnet, pool=F.avg_pool2d),
    "It uses a sigmoid: the paper's point is ReLU.": partial(_alexnet, conv_relu=torch.sigmoid, fc_relu=torch.sigmoid),
    "It uses tanh: the paper's point is ReLU.": partial(_alexnet, conv_relu=torch.tanh, fc_relu=torch.tanh),
}


@exercise
def initial_loss(answer: Callable) -> None:
    """num_classes -> the cross-entropy of a network that cannot tell the classes apart yet, in nats."""

    def right(num_classes: int) -> float:
        return float(F.cross_entropy(torch.zeros(1, num_classes, dtype=torch.float64), torch.tensor([0])))

    mistakes = {
        "The logarithm has base 2: cross-entropy in torch is in nats, with the natural logarithm.": math.log2,
        "The logarithm has base 10: cross-entropy in torch is in nats, with the natural logarithm.": math.log10,
        "It is negative: the loss is minus the logarithm of a probability below 1.": lambda n: -math.log(n),
        "That is the probability of the right class: the loss is minus its logarithm.": lambda n: 1 / n,
        "That is the share of wrong guesses: the loss is minus the logarithm of the right class's probability.": (
            lambda n: 1 - 1 / n
        ),
        "It does not depend on the number of classes as it should: it has a fixed one in it.": lambda n: math.log(10),
        "It is the loss of a fixed 200 classes: use num_classes.": lambda n: math.log(200),
        "It is the loss of a fixed 1000 classes: use num_classes.": lambda n: math.log(1000),
        "The logits are all 0, and so are their exponentials' differences: the loss is not 0.": lambda n: 0.0,
        "It takes the logarithm of num_classes - 1: the right class is one of them.": lambda n: math.log(n - 1),
        "That is the number of classes: take the right class's probability, and minus its logarithm.": float,
    }
    expect(answer, [(10,), (200,), (1000,), (2,)], right, mistakes, same=_close)


def _close(given: object, expected: float) -> bool:
    return isinstance(given, Real | torch.Tensor) and math.isclose(float(given), float(expected), rel_tol=1e-4)
