"""Answers to lesson 2 as students write them."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson import models
from cnnlesson.checks import alexnet as check
from cnnlesson.reference.audit import SLIDE


def make_alexnet(
    final=None,
    dropout=0.5,
    pool=lambda: nn.MaxPool2d(3, 2),
    relu=nn.ReLU,
    fc_relu=nn.ReLU,
    classes=None,
    bias=True,
    padding=2,
    inputs=9216,
    extra=(),
):
    """A student's AlexNet, written as one Sequential, with a mistake if an option asks for one."""

    class Answer(nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            layers = [nn.Conv2d(3, 64, 11, 4, padding, bias=bias), relu(), pool()]
            layers += [nn.Conv2d(64, 192, 5, padding=2), relu(), pool()]
            layers += [nn.Conv2d(192, 384, 3, padding=1), relu()]
            layers += [nn.Conv2d(384, 256, 3, padding=1), relu()]
            layers += [nn.Conv2d(256, 256, 3, padding=1), relu(), pool(), nn.Flatten()]
            layers += [nn.Dropout(dropout), nn.Linear(inputs, 4096), fc_relu()]
            layers += [nn.Dropout(dropout), nn.Linear(4096, 4096), fc_relu()]
            layers += [nn.Linear(4096, classes or num_classes), *extra]
            self.layers = nn.Sequential(*layers)

        def forward(self, images):
            logits = self.layers(images)
            return logits if final is None else final(logits)

    return Answer


class InAnotherOrder(nn.Module):
    """AlexNet by a student who defines the last layers first, and calls functions for everything else."""

    def __init__(self, num_classes):
        super().__init__()
        self.out = nn.Linear(4096, num_classes)
        self.hidden2 = nn.Linear(4096, 4096)
        self.hidden1 = nn.Linear(9216, 4096)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(*shape) for shape in ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1))
        )
        self.last = nn.ModuleList([nn.Conv2d(384, 256, 3, 1, 1), nn.Conv2d(256, 256, 3, 1, 1)])

    def forward(self, x):
        for number, convolution in enumerate([*self.convolutions, *self.last]):
            x = torch.relu(convolution(x))
            if number in (0, 1, 4):
                x = F.max_pool2d(x, kernel_size=3, stride=2)
        x = x.reshape(len(x), -1)
        x = torch.relu(self.hidden1(F.dropout(x, 0.5, self.training)))
        x = torch.relu(self.hidden2(F.dropout(x, 0.5, self.training)))
        return self.out(x)


class Lazy(nn.Module):
    """AlexNet by a student who lets torch find the numbers of inputs."""

    def __init__(self, num_classes):
        super().__init__()
        relu, pool = nn.ReLU, nn.MaxPool2d(3, 2)
        self.features = nn.Sequential(
            *(nn.LazyConv2d(64, 11, 4, 2), relu(), pool, nn.LazyConv2d(192, 5, padding=2), relu(), pool),
            *(nn.LazyConv2d(384, 3, padding=1), relu(), nn.LazyConv2d(256, 3, padding=1), relu()),
            *(nn.LazyConv2d(256, 3, padding=1), relu(), pool, nn.Flatten()),
        )
        self.fc6, self.fc7, self.fc8 = nn.LazyLinear(4096), nn.LazyLinear(4096), nn.LazyLinear(num_classes)

    def forward(self, images):
        x = self.fc6(F.dropout(self.features(images), training=self.training)).relu()
        return self.fc8(self.fc7(F.dropout(x, training=self.training)).relu())


class InAListWithAddModule(nn.Module):
    """The layers are in a list, which hides them, but each is registered too."""

    def __init__(self, num_classes):
        super().__init__()
        self.steps = list(make_alexnet()(num_classes).layers)
        for number, step in enumerate(self.steps):
            self.add_module(f"step{number}", step)

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        return x


def out_size_by_counting(size, kernel, stride, padding):
    places, left = 0, -padding
    while left + kernel <= size + padding:
        places, left = places + 1, left + stride
    return places


def cost(
    memory=lambda c: c.outputs * 4 / 1024,
    parameters=lambda c: c.weights + c.filters,
    work=lambda c: c.weights * c.positions,
):
    """A student's conv_cost, with a mistake if an option asks for one."""

    def answer(in_channels, in_size, filters, kernel, stride, padding):
        positions = out_size_by_counting(in_size, kernel, stride, padding) ** 2
        c = SimpleNamespace(
            in_channels=in_channels,
            pixels=in_size**2,
            filters=filters,
            kernel=kernel,
            positions=positions,
            outputs=filters * positions,
            weights=filters * in_channels * kernel**2,
        )
        return memory(c), parameters(c), work(c)

    return answer


def rows(fc6=(16, 37752.832, 37.748736), fc7=(16, 16781, 17), fc8=(4, 4097, 4)):
    return {"fc6": fc6, "fc7": fc7, "fc8": fc8}


def endless(num_classes):
    while True:
        pass


RIGHT = {
    "conv_output_size": [
        out_size_by_counting,
        lambda *case: torch.tensor(out_size_by_counting(*case)),
        lambda *case: np.array(out_size_by_counting(*case)),
        lambda size, kernel, stride, padding: int((size - kernel + 2 * padding) / stride) + 1,
        lambda size, kernel, stride, padding: math.floor((size - kernel + 2 * padding + stride) / stride),
    ],
    "conv_cost": [
        lambda *case: list(cost()(*case)),
        lambda *case: torch.tensor(cost()(*case), dtype=torch.float64),
        lambda *case: tuple(map(np.array, cost()(*case))),
        lambda c, s, f, k, st, p: (
            nn.Conv2d(c, f, k, st, p)(torch.zeros(1, c, s, s)).numel() * 4 / 1024,
            f * (c * k * k + 1),
            f * c * k**2 * out_size_by_counting(s, k, st, p) ** 2,
        ),
    ],
    "missing_rows": [
        rows(),
        {name: np.array(row) for name, row in rows().items()},
        rows(fc6=[16.0, 37753, 38], fc8=(3.9, 4097.0, 4.1)),
    ],
    "erratum": [("conv4", "flop"), ["conv4 ", "Flop"]],
    "StudentAlexNet": [make_alexnet(), InAnotherOrder, Lazy, InAListWithAddModule],
    "grouped_parameters": [
        lambda c, f, k, g: g * ((f // g) * (c // g) * k * k + f // g),
        lambda c, f, k, g: sum(p.numel() for p in nn.Conv2d(c, f, k, groups=g).parameters()),
    ],
    "initial_loss": [lambda n: -math.log(1 / n), lambda n: F.cross_entropy(torch.zeros(1, n), torch.tensor([0]))],
}

# (wrong answer, the mistake that the message must name)
WRONG = {
    "conv_output_size": [
        (lambda size, k, st, p: round((size - k + 2 * p) / st) + 1, "nearest integer"),
        (lambda size, k, st, p: round((size - k + 2 * p) / st + 1), "nearest integer"),
        (lambda s, k, st, p: -(-(s + 2 * p - k) // st) + 1, "rounds up"),
        (lambda s, k, st, p: 1 + (s + 2 * p - k) / st, "does not round"),
        (lambda s, k, st, p: float(out_size_by_counting(s, k, st, p)), "float"),
        (lambda s, k, st, p: round(1 + (s + 2 * p - k) / st), "nearest"),
        (lambda s, k, st, p: (s - k + p) // st + 1, "counted once"),
        (lambda s, k, st, p: (s - k) // st + 1, "padding is not used"),
        (lambda s, k, st, p: (s - k + 2 * p) // st, "first window"),
        (lambda s, k, st, p: s - k + 2 * p + 1, "stride is not used"),
        (lambda s, k, st, p: (s - k + 2 * p + 1) // st, "before dividing"),
        (lambda s, k, st, p: (s + 2 * p) // st, "kernel size is not subtracted"),
        (lambda s, k, st, p: print(end=""), "return"),
        (lambda s, k, st, p: s, "work that case out by hand"),
        (lambda s, k, st: s, "TypeError"),
    ],
    "conv_cost": [
        (lambda *case: cost()(*case)[0], "three numbers"),
        (cost(parameters=lambda c: c.weights), "biases are not among"),
        (cost(parameters=lambda c: c.weights + 1), "one bias for the whole layer"),
        (cost(memory=lambda c: c.outputs / 250), "1000 bytes"),
        (cost(memory=lambda c: c.outputs * 4), "in bytes"),
        (cost(memory=lambda c: c.outputs / 1024), "4 bytes"),
        (cost(memory=lambda c: c.in_channels * c.pixels / 256), "input"),
        (cost(parameters=lambda c: c.filters * c.kernel**2 + c.filters), "all input channels"),
        (cost(work=lambda c: 2 * c.weights * c.positions), "doubled"),
        (cost(work=lambda c: c.weights * c.pixels), "per pixel of the input"),
        (cost(work=lambda c: (c.weights + c.filters) * c.positions), "include the biases"),
        (cost(work=lambda c: c.weights), "one position"),
        (cost(work=lambda c: c.weights * c.positions / 1e6), "in millions"),
    ],
    "missing_rows": [
        ([1, 2, 3], "dict with the keys"),
        ({"fc6": (16, 37753, 38)}, "dict with the keys"),
        (rows(fc7=16), "three numbers"),
        (rows(fc6=(16, 37749, 38)), "lacks the biases"),
        (rows(fc6=(36, 37753, 38)), "memory is that of its input"),
        (rows(fc6=(4096, 37753, 38)), "counts numbers"),
        (rows(fc7=(16384, 16781, 17)), "in bytes"),
        (rows(fc6=(16, 37752832, 38)), "not in thousands"),
        (rows(fc6=(16, 1053, 1)), "256 inputs"),
        (rows(fc7=(16, 16781, 33.55)), "doubled"),
        (rows(fc7=(16, 16781, 16777216)), "not in millions"),
        (rows(fc8=(4, 4100.096, 4)), "one bias per input"),
        (rows(fc8=(4, 4097, 9)), "cannot be 9"),
    ],
    "erratum": [
        ("conv4", "(layer, column)"),
        (("conv4", "flop", 145), "(layer, column)"),
        (("conv4", 145), "cannot choose the column"),
        (("conv7", "flop"), "no layer"),
        (("conv4", "params"), "conv4's params, 885 on the slide, follows"),
        (("conv2", "flop"), "conv2's flop, 224 on the slide, follows"),
        (("conv1", "memory"), "conv1's memory, 784 on the slide, follows"),
        (("pool1", "size"), "pool1's size, 27 on the slide, follows"),
        (("flatten", "size"), "cell of the slide is empty"),
    ],
    "StudentAlexNet": [
        (make_alexnet(final=lambda x: x.softmax(1)), "softmax"),
        (make_alexnet(final=lambda x: F.log_softmax(x, 1)), "log_softmax"),
        (make_alexnet(extra=(nn.ReLU(),)), "after the last layer"),
        (make_alexnet(relu=nn.Identity), "no ReLU after the convolutions"),
        (make_alexnet(fc_relu=nn.Identity), "between the fully-connected"),
        (make_alexnet(relu=nn.Identity, fc_relu=nn.Identity), "no ReLU at all"),
        (make_alexnet(pool=lambda: nn.AvgPool2d(3, 2)), "average pooling"),
        (make_alexnet(dropout=0), "dropout before fc6 and fc7 is missing"),
        (make_alexnet(dropout=0.2), "20% of the inputs of fc6 are dropped, not 50%"),
        (make_alexnet(dropout=0, extra=(nn.Dropout(0.5),)), "0% of the inputs of fc6 are dropped, not 50%"),
        (make_alexnet(fc_relu=lambda: nn.Sequential(nn.ReLU(), nn.Dropout(0.5))), "of the inputs of fc7 are dropped"),
        (make_alexnet(relu=lambda: nn.Sequential(nn.ReLU(), nn.Dropout(0.1))), "of fc6 change more than by dropout"),
        (lambda num_classes: models.AlexNet(num_classes, 0.5), "the package's own AlexNet"),
        (make_alexnet(classes=1000), "num_classes"),
        (make_alexnet(bias=False), "number of parameters"),
        (make_alexnet(padding=0, pool=lambda: nn.MaxPool2d(2, 2)), "should not have padding (0, 0)"),
        (make_alexnet(inputs=256 * 13 * 13), "RuntimeError"),
        (make_alexnet(pool=lambda: nn.MaxPool2d(2, 2), inputs=256 * 7 * 7), "fully-connected layer"),
        (make_alexnet(final=lambda x: F.dropout(x, 0.5)), "In evaluation mode two passes differ"),
        (make_alexnet(relu=nn.Tanh, fc_relu=nn.Tanh), "tanh"),
        (lambda num_classes: num_classes, "nn.Module"),
    ],
    "grouped_parameters": [
        (lambda c, f, k, g: f * c * k * k + f, "groups are not used"),
        (lambda c, f, k, g: f * (c // g) * k * k, "biases are missing"),
        (lambda c, f, k, g: (f * c * k * k + f) // g, "biases are divided by the number of groups"),
        (lambda c, f, k, g: f // g * (c // g) * k * k + f, "filters are divided by the number of groups"),
        (lambda c, f, k, g: f // g * (c // g * k * k + 1), "That is one group"),
        (lambda c, f, k, g: f * c * g * k * k + f, "multiplies by the number of groups"),
        (lambda c, f, k, g: f * (c // g) * k + f, "only once"),
        (lambda c, f, k, g: f * (c / g) * k * k + f, "float"),
        (lambda c, f, k, g: f * k * k + f, "factor is missing"),
        (lambda c, f, k, g: None, "return"),
    ],
    "initial_loss": [
        (lambda n: math.log2(n), "base 2"),
        (lambda n: torch.tensor(float(n)).log10(), "base 10"),
        (lambda n: math.log(1 / n), "negative"),
        (lambda n: 1 / n, "probability of the correct class"),
        (lambda n: (n - 1) / n, "probability of a wrong guess"),
        (lambda n: math.log(1000), "for 1000 classes, whatever the argument"),
        (lambda n: 2.3026, "for 10 classes, whatever the argument"),
        (lambda n: math.log(n - 1), "num_classes - 1"),
        (lambda n: 0, "not 0"),
        (lambda n: n, "number of classes"),
        (endless, "did not return"),
    ],
}


@pytest.mark.parametrize("layer", SLIDE)
@pytest.mark.parametrize("column", ["size", "memory", "params", "flop"])
def test_only_one_cell_is_the_erratum(layer, column):
    assert check.erratum((layer, column)).right == ((layer, column) == ("conv4", "flop"))


def test_a_row_that_is_still_empty_is_unanswered():
    verdict = check.missing_rows(rows(fc7=(None, None, None)))
    assert verdict.status == "unanswered" and "fc7" in verdict.message
