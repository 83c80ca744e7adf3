"""Checks of lesson 3, ResNet."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models import resnet as trusted

from cnnlesson.checks import verdict
from cnnlesson.checks.transplant import LOGITS_MISTAKES, Trace, copy_weights, near, trace_layers
from cnnlesson.checks.verdict import Wrong, exercise, expect
from cnnlesson.models import BasicBlock, cifar_resnet
from cnnlesson.models.resnet import PlainBlock

progress = partial(verdict.progress, __name__)


@exercise
def ResidualUnit(answer: Callable) -> None:  # noqa: N802, named as the answer is
    """ResidualUnit(transform): a module whose output is transform(x) + x."""
    torch.manual_seed(0)
    x = torch.randn(3, 6, 5, 5)
    two_layers = nn.Sequential(nn.Conv2d(6, 9, 3, padding=1), nn.Tanh(), nn.Conv2d(9, 6, 3, padding=1))
    for transform in (nn.Linear(5, 5), two_layers):
        calls = []
        transform.register_forward_hook(lambda *call, calls=calls: calls.append(call))
        unit = _module(answer(transform))
        output = _leaves_its_input(unit, x)
        if not calls:
            raise Wrong("The transform that it was given is never called: F is the argument, not a layer of your own.")
        if output.shape != x.shape:
            if output.numel() == 2 * x.numel():
                raise Wrong("It puts F(x) and x side by side, twice as many numbers: a residual is added.")
            raise Wrong(f"x has shape {tuple(x.shape)} and the output {tuple(output.shape)}: the sum of F(x) and x?")
        with torch.no_grad():
            if not near(output, transform(x) + x):
                for message, mistake in UNIT_MISTAKES.items():
                    if near(output, mistake(transform, x)):
                        raise Wrong(message)
                raise Wrong("The output is not the sum of F(x) and x: compare forward with the figure.")
        own = {id(parameter) for parameter in unit.parameters()}
        if not own:
            raise Wrong(
                "The unit has no parameters, so an optimizer would not see those of F: keep the transform itself as an "
                "attribute of the module, not in a function."
            )
        if not own >= {id(parameter) for parameter in transform.parameters()}:
            raise Wrong("The unit holds a copy of the transform: keep the module that it was given.")
        _same_gradient(lambda x, transform=transform: transform(x) + x, unit, x, transform.parameters())


UNIT_MISTAKES = {
    "The shortcut is missing: that is F(x) alone, an entirely new value.": lambda f, x: f(x),
    "It subtracts x: what F gives is added to the previous value.": lambda f, x: f(x) - x,
    "It subtracts F(x): what F gives is added to the previous value.": lambda f, x: x - f(x),
    "It multiplies: what F gives is added to the previous value.": lambda f, x: f(x) * x,
    "It adds F(x) twice, and x never.": lambda f, x: 2 * f(x),
    "It adds x twice.": lambda f, x: f(x) + 2 * x,
    "F is applied to its own output: x goes through it once.": lambda f, x: f(f(x)) + x,
    "F sees x + x or another sum: the shortcut goes past F, not into it.": lambda f, x: f(x + x),
    "There is a ReLU behind the addition: this unit only adds. The block of a ResNet comes later.": (
        lambda f, x: F.relu(f(x) + x)
    ),
    "There is a ReLU on F(x): this unit only adds. What F contains is F's own affair.": lambda f, x: F.relu(f(x)) + x,
    "It takes the mean of F(x) and x: the sum is not halved.": lambda f, x: (f(x) + x) / 2,
    "It gives back x alone: F(x) is never added.": lambda f, x: x,
}


@exercise
def insert_identity(answer: Callable) -> None:
    """From a plain network a copy with one more block at the end of each stage, and the same outputs."""
    torch.set_default_dtype(torch.float64)  # float32's rounding would hide batch norm's eps; put back afterwards
    for depth, num_classes in ((8, 7), (14, 4)):
        torch.manual_seed(depth)
        plain = _stir(cifar_resnet(depth, num_classes, residual=False)).eval()
        before = copy.deepcopy(plain)
        deeper = answer(plain)
        if deeper is None:
            raise Wrong("It returns None: does the function end with a return?")
        _module(deeper, "It must return a network, as plain_model is one.")
        _original_is_untouched(plain, before, deeper)
        _is_deeper(deeper, before)
        images = torch.randn(4, 3, 16, 16)
        with torch.no_grad():
            expected = before(images)
            given = copy.deepcopy(deeper)(images)  # a pass in training mode would move its statistics
            if given.shape != expected.shape or not torch.allclose(given, expected, rtol=1e-8, atol=1e-10):
                raise Wrong(_why_not_identity(deeper, before, images, expected))
        _is_trainable(deeper.train(), images)


STAGES = ("layer1", "layer2", "layer3")


def _original_is_untouched(plain: nn.Module, before: nn.Module, deeper: nn.Module) -> None:
    if len(list(plain.modules())) != len(list(before.modules())):
        raise Wrong("The original network was modified: it got the new layers too. Work on a deep copy of it.")
    if deeper is plain:
        raise Wrong("It returns the original network itself: return a deeper copy, and leave the original as it was.")
    state = before.state_dict()
    if any(not torch.equal(value, state[name]) for name, value in plain.state_dict().items()):
        raise Wrong(
            "The original's weights or running statistics were modified: work on a deep copy, and remember that a "
            "pass in training mode moves batch norm's statistics."
        )
    if any(module.training for module in plain.modules()):
        raise Wrong("The original network was put into training mode: leave it as it was.")
    if {id(parameter) for parameter in plain.parameters()} & {id(parameter) for parameter in deeper.parameters()}:
        raise Wrong("The deeper network shares layers with the original: training it would alter both. Copy deeply.")


def _is_deeper(deeper: nn.Module, before: nn.Module) -> None:
    if any(isinstance(block, BasicBlock) and not isinstance(block, PlainBlock) for block in deeper.modules()):
        raise Wrong("A new block has a shortcut. The claim is about plain networks: the deeper one must be plain too.")
    images = torch.randn(2, 3, 16, 16)
    ours, theirs = (trace_layers(copy.deepcopy(network).eval(), images) for network in (before, deeper))
    if theirs.error is not None:
        raise theirs.error
    if len(theirs.convolutions) == len(ours.convolutions):
        raise Wrong(
            "It is not deeper: images run through as many convolutions as before. A block that is not in a stage does "
            "not run, and nn.Identity() has no layers."
        )
    for name in STAGES:
        counts = []
        for network in (before, deeper):
            stage = getattr(network, name, None)
            counts.append(sum(isinstance(module, nn.Conv2d) for module in stage.modules()) if stage else 0)
        old, new = counts
        if new < old + 2:
            raise Wrong(f"{name} has {new} convolutions, and had {old}: each stage gets one more block of two layers.")
        if new > old + 2:
            raise Wrong(f"{name} has {new} convolutions, and had {old}: one block of two layers a stage is enough.")


def _why_not_identity(deeper: nn.Module, before: nn.Module, images: torch.Tensor, expected: torch.Tensor) -> str:
    """What keeps the new layers from passing on what they receive; called without gradients."""
    in_evaluation = copy.deepcopy(deeper).eval()
    if deeper.training or any(module.training for module in deeper.modules()):
        if torch.allclose(in_evaluation(images), expected, rtol=1e-8, atol=1e-10):
            return (
                "The new layers are in training mode, as layers are when they are made: there batch norm takes the "
                "mean and deviation of the batch at hand. plain_model was in evaluation mode."
            )
        in_training = True
    else:
        in_training = False
    trace = trace_layers(in_evaluation, images)
    old_weights = [layer.weight for layer in before.modules() if isinstance(layer, nn.Conv2d)]
    new = [
        step
        for step in trace.convolutions
        if not any(step.layer.weight.shape == old.shape and torch.equal(step.layer.weight, old) for old in old_weights)
    ]
    norms = [step.layer for step in trace.norms if any(step.maker is conv.layer for conv in new)]
    if any(not step.layer.weight.any() for step in new) or any(not norm.weight.any() for norm in norms):
        return (
            "A new layer gives zeros. F(x) = 0 is the identity in a residual block, where x is added; a plain block "
            "must give x itself."
        )
    if len(norms) == len(new) and len(new) % 2 == 0:
        pairs = [(new[place], norms[place], new[place + 1], norms[place + 1]) for place in range(0, len(new), 2)]
        if all(
            torch.allclose(norm2(second.layer(norm1(first.layer(first.input)))), first.input, atol=1e-4)
            and norm1(first.layer(first.input)).min() < -1e-6
            for first, norm1, second, norm2 in pairs
        ):
            return (
                "Without ReLU your new blocks would pass everything on, but ReLU stands between their two layers and "
                "cuts off what is negative there. What comes into a block is never negative: keep it so."
            )
    for step in new:
        if not torch.allclose(step.layer.weight, nn.init.dirac_(torch.empty_like(step.layer.weight))):
            return (
                "A new convolution changes what it receives. Each of its filters must give back one channel: look at "
                "its weights, stage[-1].conv1.weight[0, 0] and [0, 1]."
            )
        if step.layer.bias is not None and step.layer.bias.any():
            return "A new convolution has a bias that is not 0: it is added to what should pass unchanged."
    scales = [norm.weight / (norm.running_var + norm.eps).sqrt() for norm in norms]
    shifts = [norm.bias - norm.running_mean * scale for norm, scale in zip(norms, scales, strict=True)]
    if any((shift.abs() > 1e-3).any() for shift in shifts):
        return "A new batch norm shifts its input: it takes off running_mean and adds its bias. Do the two cancel?"
    if any(((scale - 1).abs() > 0.05).any() for scale in scales):
        return "A new batch norm scales its input: it divides by the root of running_var, and multiplies by its weight."
    if any(((scale - 1).abs() > 1e-12).any() for scale in scales):
        return (
            "The outputs differ by a little: batch norm divides by the root of running_var + eps, not of running_var. "
            "What must its weight be then?"
        )
    if in_training:
        return "Its outputs differ from the original's, and some of its layers are in training mode."
    return "Its outputs differ from the original's: compare what comes into a new block with what it gives."


def _is_trainable(deeper: nn.Module, images: torch.Tensor) -> None:
    own = {id(parameter) for parameter in deeper.parameters() if parameter.requires_grad}
    with torch.enable_grad():
        for layer in deeper.modules():
            if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear) and id(layer.weight) not in own:
                raise Wrong(
                    "A layer cannot be trained: its weight does not require a gradient, or is no nn.Parameter of the "
                    "network. The deeper network must be able to go on learning."
                )
        deeper(images).sum().backward()


class _Layer(NamedTuple):
    """A convolution as a block should have it; the padding follows from the kernel."""

    kernel: int
    in_channels: int
    out_channels: int
    stride: int


@exercise
def StudentBasicBlock(answer: Callable) -> None:  # noqa: N802
    """StudentBasicBlock(in_channels, out_channels, stride): relu(F(x) + shortcut(x)) with two 3×3 convolutions."""

    def layers(in_channels: int, out_channels: int, stride: int) -> list[_Layer]:
        return [_Layer(3, in_channels, out_channels, stride), _Layer(3, out_channels, out_channels, 1)]

    def ours(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        return trusted.BasicBlock(in_channels, out_channels, stride, _projection(in_channels, out_channels, stride))

    _check_block(answer, [(8, 8, 1), (8, 16, 2), (8, 16, 1), (8, 8, 2)], layers, ours)


@exercise
def StudentBottleneck(answer: Callable) -> None:  # noqa: N802
    """StudentBottleneck(in_channels, width, out_channels, stride): 1×1, 3×3 with the stride, 1×1."""

    def layers(in_channels: int, width: int, out_channels: int, stride: int) -> list[_Layer]:
        return [_Layer(1, in_channels, width, 1), _Layer(3, width, width, stride), _Layer(1, width, out_channels, 1)]

    def ours(in_channels: int, width: int, out_channels: int, stride: int) -> nn.Module:
        class Bottleneck(trusted.Bottleneck):
            expansion = out_channels // width

        return Bottleneck(in_channels, width, stride, _projection(in_channels, out_channels, stride))

    cases = [(16, 4, 16, 1), (16, 8, 32, 2), (16, 8, 32, 1), (16, 4, 16, 2), (12, 6, 12, 1)]
    _check_block(answer, cases, layers, ours)


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """torchvision's shortcut where F changes the shape."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(trusted.conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


def _check_block(answer: Callable, cases: Sequence[tuple], layers: Callable, make_ours: Callable) -> None:
    """Compare a block with torchvision's on each case, in evaluation and in training mode."""
    for case in cases:
        torch.manual_seed(0)
        x = torch.randn(3, case[0], 8, 8)
        ours = _stir(make_ours(*case))
        theirs = _module(answer(*case))
        try:
            trace = trace_layers(theirs.eval(), x)
            _right_layers(trace, layers(*case), stride=case[-1], in_size=8)
            output = _leaves_its_input(theirs, x)
            expected = ours.eval()(x)
            if output.shape != expected.shape:
                if output.dim() == 4 and output.shape[1] == 2 * expected.shape[1]:
                    raise Wrong("It puts F(x) and the shortcut side by side, twice the channels: they are added.")
                raise Wrong(f"Its output has shape {tuple(output.shape)}: F(x) has {tuple(expected.shape)}.")
            _all_in_use(theirs, trace)
            copy_weights(ours, theirs, x)
            _same_outputs(ours, theirs, x, BLOCK_MISTAKES)
            _same_gradient(ours.train(), theirs.train(), x)
        except Wrong as wrong:
            raise Wrong(f"With ({', '.join(map(str, case))}): {wrong}") from None


def _right_layers(trace: Trace, expected: list[_Layer], stride: int, in_size: int) -> None:
    """Raise `Wrong` where the layers that ran are not those of F and its shortcut.

    It comes before a look at the error that the block may have raised, since a wrong layer is mostly its cause.
    """
    in_channels, out_channels = expected[0].in_channels, expected[-1].out_channels
    changes = stride != 1 or in_channels != out_channels
    convolutions = [step.layer for step in trace.convolutions]
    is_shortcut = [
        layer.kernel_size == (1, 1) and (layer.in_channels, layer.out_channels) == (in_channels, out_channels)
        for layer in convolutions
    ]
    shortcuts = [layer for layer, yes in zip(convolutions, is_shortcut, strict=True) if yes]
    layers = [layer for layer, yes in zip(convolutions, is_shortcut, strict=True) if not yes]
    if not changes and len(layers) < len(expected):
        layers, shortcuts = convolutions, []  # a 1×1 convolution in F's place
    if shortcuts and not changes:
        raise Wrong("There is a projection where none is needed: F keeps the shape, so x itself can be added.")
    if len({id(layer) for layer in layers}) < len(layers):
        raise Wrong("One convolution runs twice, so two layers share their weights: make each of them.")
    known = {in_channels, *(layer.out_channels for layer in expected)}
    for layer in convolutions:
        if layer.out_channels not in known:
            raise Wrong(f"A convolution gives {layer.out_channels} channels: are all arguments used as they are?")
    kernels = [layer.kernel_size[0] for layer in layers]
    if kernels != [layer.kernel for layer in expected]:
        if trace.error is not None and len(layers) < len(expected):
            raise trace.error
        found = ", ".join(f"{kernel}×{kernel}" for kernel in kernels) or "none"
        raise Wrong(f"F's convolutions are, in the order in which they run: {found}. Compare with the figure.")
    for number, (layer, wanted) in enumerate(zip(layers, expected, strict=True), start=1):
        channels = (layer.in_channels, layer.out_channels)
        if channels != (wanted.in_channels, wanted.out_channels):
            raise Wrong(
                f"F's convolution {number} goes from {channels[0]} to {channels[1]} channels: which of F's layers "
                "should change the channels, and are all arguments used?"
            )
    _right_strides([layer.stride[0] for layer in layers], [layer.stride for layer in expected], layers)
    for number, (layer, wanted) in enumerate(zip(layers, expected, strict=True), start=1):
        if layer.padding not in ((wanted.kernel // 2,) * 2, "same"):
            raise Wrong(f"F's convolution {number} has padding {layer.padding}: it must not shrink the image itself.")
    if len(shortcuts) > 1:
        raise Wrong("There are two projections: the shortcut needs one convolution.")
    if changes and not shortcuts:
        before, after = (in_channels, in_size, in_size), (out_channels, in_size // stride, in_size // stride)
        what = "the channels" if stride == 1 else "the size" if in_channels == out_channels else "channels and size"
        raise Wrong(
            f"The shortcut is not projected. F changes {what}, from {before} to {after}: x cannot be added as it is."
        )
    if shortcuts and shortcuts[0].stride[0] != stride:
        raise Wrong(
            f"The stride is ignored in the shortcut: its convolution has stride {shortcuts[0].stride[0]}, and F "
            f"makes the image {stride} times smaller."
        )
    if any(layer.bias is not None for layer in convolutions):
        raise Wrong("A convolution has a bias. The batch norm behind it takes the mean off again: leave it out.")
    _right_norms(trace, shortcuts)
    if trace.error is not None:
        raise trace.error


def _right_strides(found: list[int], expected: list[int], layers: list[nn.Conv2d]) -> None:
    if found == expected:
        return
    stride = max(expected)
    if max(found) == 1:
        raise Wrong(f"The stride is not used: no convolution of F has the stride {stride}.")
    if sum(value > 1 for value in found) > 1:
        raise Wrong("The stride is on more than one convolution of F: each of them would shrink the image.")
    number = 1 + found.index(max(found))
    kernel = layers[number - 1].kernel_size[0]
    if sorted(found) == sorted(expected):
        raise Wrong(
            f"The stride is on the wrong convolution: on number {number} of F, a {kernel}×{kernel}"
            + (" that skips three pixels of four." if kernel == 1 else ".")
        )
    raise Wrong(f"F's convolution {number} has stride {max(found)}: use the argument.")


def _right_norms(trace: Trace, shortcuts: list[nn.Conv2d]) -> None:
    """Every convolution has a batch norm of its own right behind it, and there is no other."""
    norms = [step.layer for step in trace.norms]
    makers = [step.maker for step in trace.norms]
    if len({id(norm) for norm in norms}) < len(norms):
        raise Wrong("One batch norm runs twice: each convolution has its own, since each output has its own mean.")
    lacking = [step.layer for step in trace.convolutions if not any(step.layer is maker for maker in makers)]
    if any(not isinstance(maker, nn.Conv2d) for maker in makers):
        raise Wrong(
            "A batch norm does not stand right behind a convolution: the order is convolution, batch norm, ReLU, and "
            "nothing else is normalised."
        )
    if trace.error is not None:
        return
    if any(layer is shortcut for layer in lacking for shortcut in shortcuts):
        raise Wrong("The shortcut's projection has no batch norm: F(x), to which it is added, ends in one.")
    if len(lacking) == len(trace.convolutions):
        raise Wrong("Batch norm is missing: there is one behind each convolution.")
    if lacking:
        raise Wrong(f"Batch norm is missing behind {len(lacking)} of {len(trace.convolutions)} convolutions.")


def _all_in_use(model: nn.Module, trace: Trace) -> None:
    used = {id(parameter) for step in trace.steps for parameter in step.layer.parameters()}
    unused = [name for name, parameter in model.named_parameters() if id(parameter) not in used]
    if unused:
        raise Wrong(f"A layer is defined and never used, {unused[0].rpartition('.')[0]}: make it only where it runs.")


def _pairs(block: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """F's convolutions in torchvision's block, each with its batch norm."""
    pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
    return [*pairs, (block.conv3, block.bn3)] if hasattr(block, "conv3") else pairs


def _residual(block: nn.Module, x: torch.Tensor, without: Sequence[int] = ()) -> torch.Tensor:
    """F(x), with no ReLU behind the layers in `without` (the first is 0)."""
    pairs = _pairs(block)
    for number, (convolution, norm) in enumerate(pairs):
        x = norm(convolution(x))
        if number < len(pairs) - 1 and number not in without:
            x = F.relu(x)
    return x


def _shortcut(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x if block.downsample is None else block.downsample(x)


def _after_one_layer(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = F.relu(block.bn1(block.conv1(x)))
    return x if hasattr(block, "conv3") else F.relu(block.bn2(block.conv2(x)) + x)


BLOCK_MISTAKES = {
    "The shortcut is missing: that is a plain block.": lambda b, x: F.relu(_residual(b, x)),
    "The shortcut and the last ReLU are missing.": lambda b, x: _residual(b, x),
    "There is no ReLU after the addition.": lambda b, x: _residual(b, x) + _shortcut(b, x),
    "The last ReLU comes before the addition, on F(x) alone: then a block could only ever add.": (
        lambda b, x: F.relu(_residual(b, x)) + _shortcut(b, x)
    ),
    "There is a ReLU before the addition, on F(x): then a block could only ever add.": (
        lambda b, x: F.relu(F.relu(_residual(b, x)) + _shortcut(b, x))
    ),
    "There is a ReLU on the shortcut: it should carry x as it is.": (
        lambda b, x: F.relu(_residual(b, x) + F.relu(_shortcut(b, x)))
    ),
    "Both F(x) and the shortcut have a ReLU of their own, before the addition: it comes after.": (
        lambda b, x: F.relu(_residual(b, x)) + F.relu(_shortcut(b, x))
    ),
    "There is a ReLU on x before anything else: x comes as it is.": (
        lambda b, x: F.relu(_residual(b, F.relu(x)) + _shortcut(b, F.relu(x)))
    ),
    "There is no ReLU between the convolutions: without it they are no more than one.": (
        lambda b, x: F.relu(_residual(b, x, without=(0, 1)) + _shortcut(b, x))
    ),
    "There is no ReLU between the first and the second convolution.": (
        lambda b, x: F.relu(_residual(b, x, without=(0,)) + _shortcut(b, x))
    ),
    "There is no ReLU between the second and the third convolution.": (
        lambda b, x: F.relu(_residual(b, x, without=(1,)) + _shortcut(b, x))
    ),
    "There is no ReLU at all.": lambda b, x: _residual(b, x, without=(0, 1)) + _shortcut(b, x),
    "It subtracts the shortcut: F(x) and the shortcut are added.": (
        lambda b, x: F.relu(_residual(b, x) - _shortcut(b, x))
    ),
    "It subtracts F(x): F(x) and the shortcut are added.": lambda b, x: F.relu(_shortcut(b, x) - _residual(b, x)),
    "It multiplies: F(x) and the shortcut are added.": lambda b, x: F.relu(_residual(b, x) * _shortcut(b, x)),
    "F(x) is added to itself: was x overwritten before the shortcut used it?": lambda b, x: F.relu(2 * _residual(b, x)),
    "The shortcut starts behind the first layer: was x overwritten before it was kept?": _after_one_layer,
    "F is not used: the output is that of the shortcut alone.": lambda b, x: F.relu(_shortcut(b, x)),
}


@exercise
def make_stage(answer: Callable) -> None:
    """(block, in_channels, out_channels, num_blocks, stride) -> nn.Sequential of blocks."""
    ran: list[_Probe] = []

    class Block(_Probe):
        log = ran

    def specification(in_channels: int, out_channels: int, num_blocks: int, stride: int) -> list[tuple]:
        """The (in_channels, out_channels, stride) of each block, in the order in which the answer runs them."""
        ran.clear()
        stage = answer(Block, in_channels, out_channels, num_blocks, stride)
        if stage is None:
            raise Wrong("It returns None: does the function end with a return?")
        if isinstance(stage, list | tuple):
            raise Wrong(
                "It returns a list: a network does not see the parameters of layers in a list, and cannot call it. "
                "nn.Sequential(*blocks) takes them."
            )
        if isinstance(stage, nn.ModuleList):
            raise Wrong("It returns an nn.ModuleList, which cannot be called on images: return an nn.Sequential.")
        if not isinstance(stage, nn.Sequential):
            raise Wrong(f"It returns {type(stage).__name__}: return an nn.Sequential of the blocks.")
        x = torch.full((2, in_channels, 4, 4), 100.0)
        output = stage(x)
        if not ran:
            raise Wrong("It makes no block of the kind it was given: call block(in_channels, out_channels, stride).")
        if len({id(block) for block in ran}) < len(ran):
            raise Wrong("One block object stands in the stage several times, so they share weights: make each anew.")
        if not torch.equal(output, x - 101 * len(ran)):
            raise Wrong("The stage does more than run its blocks: a block ends in its own ReLU.")
        return [block.shape for block in ran]

    def right(in_channels: int, out_channels: int, num_blocks: int, stride: int) -> list[tuple]:
        return [(in_channels, out_channels, stride)] + [(out_channels, out_channels, 1)] * (num_blocks - 1)

    mistakes = {
        "Every block has the stride, so each halves the image: once in a stage is enough.": (
            lambda i, o, n, s: [(i, o, s)] + [(o, o, s)] * (n - 1)
        ),
        "in_channels is not updated: what does the second block receive?": (
            lambda i, o, n, s: [(i, o, s)] + [(i, o, 1)] * (n - 1)
        ),
        "All blocks are made alike: only the first changes channels and size.": lambda i, o, n, s: [(i, o, s)] * n,
        "The stride is not used: the first block must have it.": (
            lambda i, o, n, s: [(i, o, 1)] + [(o, o, 1)] * (n - 1)
        ),
        "The first block has a fixed stride of 2: use the argument.": (
            lambda i, o, n, s: [(i, o, 2)] + [(o, o, 1)] * (n - 1)
        ),
        "There is one block too many: the first one counts too.": lambda i, o, n, s: right(i, o, n + 1, s),
        "There is one block too few.": lambda i, o, n, s: [(i, o, s)] + [(o, o, 1)] * (n - 2),
        "There are always two blocks: use num_blocks.": lambda i, o, n, s: right(i, o, 2, s),
        "There is one block only: num_blocks is not used.": lambda i, o, n, s: [(i, o, s)],
        "The last block changes the channels and the size: the first should.": (
            lambda i, o, n, s: [(i, i, 1)] * (n - 1) + [(i, o, s)]
        ),
        "The channels change in the first block and the size in the last: the first should change both.": (
            lambda i, o, n, s: [*right(i, o, n, 1)[:-1], (o if n > 1 else i, o, s)]
        ),
        "The first block keeps in_channels: it should change them.": (
            lambda i, o, n, s: [(i, i, s)] + [(i, o, 1)] * (n > 1) + [(o, o, 1)] * (n - 2)
        ),
        "The blocks stand in reverse order.": lambda i, o, n, s: right(i, o, n, s)[::-1],
    }

    specification.__name__ = "make_stage"  # what is compared are the blocks that run in its stage
    expect(specification, [(16, 32, 3, 2), (16, 16, 2, 1), (8, 32, 4, 1), (8, 8, 1, 2), (8, 24, 1, 3)], right, mistakes)


class _Probe(nn.Module):
    """A block that notes with what it was made, and when it runs."""

    log: list["_Probe"]

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.shape = (in_channels, out_channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.log.append(self)
        return x - 101  # negative, so that a ReLU behind it shows


@exercise
def StudentResNet18(answer: Callable) -> None:  # noqa: N802
    """StudentResNet18(num_classes): the slide's 18 layers, logits (N, num_classes) of images."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    theirs = _module(answer(num_classes=7))
    trace = trace_layers(theirs.eval(), images)
    _right_stem(trace)
    _right_stages(trace)
    _right_end(theirs, trace)
    _leaves_its_input(theirs, images)
    _all_in_use(theirs, trace)
    ours = _stir(torchvision.models.resnet18(num_classes=7))
    copy_weights(ours, theirs, images)
    mistakes = NETWORK_MISTAKES | {
        f"In its blocks: {message}": partial(_resnet, block=block) for message, block in BLOCK_MISTAKES.items()
    }
    _same_outputs(ours, theirs, images, mistakes)
    larger = torch.randn(2, 3, 96, 96)
    try:
        with torch.no_grad():
            is_same = near(theirs.eval()(larger), ours.eval()(larger))
    except RuntimeError:
        is_same = False
    if not is_same:
        raise Wrong(
            "It is right for images of 64×64 pixels and not for 96×96: the average behind the last stage must be taken "
            "over the whole map, whatever its size."
        )


def _right_stem(trace: Trace) -> None:
    if not trace.convolutions:
        if trace.error is not None:
            raise trace.error
        raise Wrong("It has no convolution that runs.")
    stem = trace.convolutions[0].layer
    (kernel, _), (stride, _), filters = stem.kernel_size, stem.stride, stem.out_channels
    if (kernel, stride, filters) != (7, 2, 64):
        raise Wrong(
            f"The convolution at the beginning is {kernel}×{kernel} with stride {stride} and {filters} filters: "
            "compare with the piece above."
        )
    if stem.padding != (3, 3):
        raise Wrong(f"The convolution at the beginning has padding {stem.padding}: compare with the piece above.")


def _right_stages(trace: Trace) -> None:
    """The convolutions behind the first one, by stage."""
    steps = trace.convolutions[1:]
    layers = [step for step in steps if step.layer.kernel_size == (3, 3)]
    projections = [step for step in steps if step.layer.kernel_size == (1, 1)]
    complete = trace.error is None
    if layers and layers[0].in_size != 16:
        if layers[0].in_size == 32:
            raise Wrong(
                "The max pool is missing: the first block receives maps of 32×32 for an image of 64×64, and should "
                "receive a quarter of the image's size."
            )
        raise Wrong(
            f"The first block receives maps of {layers[0].in_size}×{layers[0].in_size} for an image of 64×64, and "
            "should receive a quarter of the image's size: look at the max pool's kernel, stride and padding."
        )
    filters = [step.layer.out_channels for step in layers]
    if complete and len(layers) != 16:
        raise Wrong(
            f"Images run through {len(layers)} convolutions of 3×3: how many have four stages of two blocks of two?"
        )
    if complete and filters != [64] * 4 + [128] * 4 + [256] * 4 + [512] * 4:
        raise Wrong(f"The filters of the 3×3 convolutions are {filters}: each stage has twice those of the one before.")
    strides = [step.layer.stride[0] for step in layers]
    expected = ([1] * 4 + [2, 1, 1, 1] * 3)[: len(strides)]
    if strides != expected:
        if 2 in strides[:4]:
            raise Wrong("The stages' strides are wrong: the first stage halves the image, as the pool just has.")
        if 2 not in strides and (complete or len(strides) > 4):
            raise Wrong("The stages' strides are wrong: no stage halves the image.")
        if complete or any(found > wanted for found, wanted in zip(strides, expected, strict=True)):
            raise Wrong(f"The stages' strides are wrong: those of the 3×3 convolutions are {strides}, in order.")
    if complete and not projections:
        raise Wrong(
            "No shortcut has a projection: either the blocks are plain, or x is not brought to the new shape by a 1×1 "
            "convolution where a stage changes it."
        )
    if complete and len(projections) > 3:
        raise Wrong(
            f"{len(projections)} shortcuts have a projection: at the beginning of the first stage none is needed, nor "
            "inside a stage."
        )
    if any(step.layer.bias is not None for step in trace.convolutions):
        raise Wrong("A convolution has a bias. The batch norm behind it takes the mean off again: leave it out.")
    _right_norms(trace, [step.layer for step in projections])


def _right_end(model: nn.Module, trace: Trace) -> None:
    linears = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if len(linears) > 1:
        raise Wrong(f"It has {len(linears)} fully-connected layers: there is only the one to the output classes.")
    if linears and linears[0].in_features != 512:
        raise Wrong(
            f"The last layer takes {linears[0].in_features} numbers: global average pooling is missing. It leaves one "
            "number for each map of the last stage."
        )
    if trace.error is not None:
        if len(trace.convolutions) == 20:
            raise Wrong(
                "Images of 64×64 pixels come through all stages, and then it raised: "
                f"{' '.join(str(trace.error).split())}. Is the average taken over the whole map, whatever its size?"
            )
        raise trace.error
    logits = trace.output
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != 2:
        raise Wrong("forward must return logits of shape (N, num_classes).")
    if logits.shape[1] != 7:
        raise Wrong(
            f"With num_classes=7 an image gets {logits.shape[1]} logits: the last layer must have num_classes outputs."
        )
    if not linears:
        raise Wrong("It has no fully-connected layer to the output classes.")


def _resnet(
    net: nn.Module,
    x: torch.Tensor,
    block: Callable = lambda block, x: block(x),
    relu: Callable = F.relu,
    pool: Callable = lambda x: F.max_pool2d(x, 3, 2, 1),
    average: Callable = lambda x: x.mean(dim=(2, 3)),
) -> torch.Tensor:
    """torchvision's ResNet with other functions in places."""
    x = pool(relu(net.bn1(net.conv1(x))))
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        for layer in stage:
            x = block(layer, x)
    return net.fc(average(x))


NETWORK_MISTAKES = LOGITS_MISTAKES | {
    "It ends in a sigmoid, but the loss takes logits: return the last layer's output.": lambda net, x: net(x).sigmoid(),
    "There is no ReLU behind the first convolution and its batch norm.": partial(_resnet, relu=lambda x: x),
    "The pool at the beginning takes the mean: it should take the largest value.": (
        partial(_resnet, pool=lambda x: F.avg_pool2d(x, 3, 2, 1))
    ),
    "The max pool at the beginning has another kernel: compare with the piece above.": (
        partial(_resnet, pool=lambda x: F.max_pool2d(x, 2, 2))
    ),
    "There is no max pool at the beginning, only every second pixel: compare with the piece above.": (
        partial(_resnet, pool=lambda x: x[:, :, ::2, ::2])
    ),
    "Behind the last stage it takes the largest value of each map: it should take the average.": (
        partial(_resnet, average=lambda x: x.amax(dim=(2, 3)))
    ),
    "Behind the last stage it takes the sum of each map: it should take the average.": (
        partial(_resnet, average=lambda x: x.sum(dim=(2, 3)))
    ),
    "Behind the last stage it takes one pixel of each map: it should take the average.": (
        partial(_resnet, average=lambda x: x[:, :, 0, 0])
    ),
}


def _module(answer: object, words: str = "It must be a class that inherits from nn.Module.") -> nn.Module:
    if not isinstance(answer, nn.Module):
        raise Wrong(words)
    for module in answer.modules():
        for name, value in vars(module).items():
            if isinstance(value, list | tuple) and any(isinstance(layer, nn.Module) for layer in value):
                raise Wrong(
                    f"self.{name} keeps layers in a list, where the network does not see their parameters and an "
                    "optimizer does not train them: use nn.Sequential or nn.ModuleList."
                )
    return answer


def _leaves_its_input(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The module's output for x; raises `Wrong` where it changes x itself."""
    given = x.clone()
    with torch.no_grad():
        output = module(given)
    if not torch.equal(given, x):
        raise Wrong(
            "It changes its input in place, with += or an inplace ReLU: whoever gave it x loses x. Make a new tensor."
        )
    if output is None:
        raise Wrong("forward returns None: does it end with a return?")
    if not isinstance(output, torch.Tensor):
        raise Wrong(f"forward must return a tensor, not {type(output).__name__}.")
    return output


@torch.no_grad()
def _same_outputs(ours: nn.Module, theirs: nn.Module, x: torch.Tensor, mistakes: dict[str, Callable]) -> None:
    """With the same weights the outputs are the same, in evaluation and in training mode."""
    output = theirs.eval()(x.clone())
    if not near(output, ours.eval()(x)):
        for message, mistake in mistakes.items():
            if near(output, mistake(ours, x)):
                raise Wrong(message)
        raise Wrong("With the same weights its outputs differ from torchvision's: compare forward with the figure.")
    if not near(theirs.train()(x.clone()), ours.train()(x)):
        raise Wrong(
            "Its outputs are right in evaluation mode and differ in training mode: does something there depend on the "
            "mode besides batch norm, or is batch norm kept from it?"
        )


def _same_gradient(ours: Callable, theirs: Callable, x: torch.Tensor, parameters: Sequence = ()) -> None:
    """The gradient reaches x, and `parameters`, through F and through the shortcut."""
    gradients = []
    x = x.clone().requires_grad_()
    parameters = [x, *parameters]
    for module in (ours, theirs):
        with torch.enable_grad():
            output = module(x * 1)
            weights = torch.linspace(-1, 2, output.numel()).view_as(output)
            if not output.requires_grad:
                raise Wrong("No gradient comes through it: is there a no_grad, a detach or a .data?")
            gradients.append(torch.autograd.grad((output * weights).sum(), parameters, allow_unused=True))
    for expected, given in zip(*gradients, strict=True):
        if given is None or not near(given, expected):
            raise Wrong(
                "The outputs are right, but the gradient does not come through both F and the shortcut: is there a "
                "detach, a no_grad or a .data?"
            )


@torch.no_grad()
def _stir(model: nn.Module) -> nn.Module:
    """Give batch norms the weights and statistics that training might, so that none passes its input on unchanged."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.normal_(0, 0.2)
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    return model
