"""Checks of lesson 3, ResNet."""

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models import resnet as trusted

from cnnlesson.checks import verdict
from cnnlesson.checks.transplant import (
    LOGITS_MISTAKES,
    Trace,
    as_module,
    copy_weights,
    near,
    need_logits,
    need_same_output,
    trace_layers,
)
from cnnlesson.checks.verdict import Wrong, exercise, expect, reject, returned
from cnnlesson.models import BasicBlock, Bottleneck, cifar_resnet
from cnnlesson.models.resnet import PlainBlock
from cnnlesson.models.resnet import make_stage as stage_of
from cnnlesson.runtime.display import one_line

progress = partial(verdict.progress, __name__)

OWN_VERSIONS = {"StudentBasicBlock": BasicBlock, "StudentBottleneck": Bottleneck, "make_stage": stage_of}

unchanged = nn.Identity()


@exercise
def ResidualUnit(answer: Callable) -> None:  # noqa: N802, named as the answer is
    """ResidualUnit(transform): a module that returns transform(x) + x."""
    torch.manual_seed(0)
    x = torch.randn(3, 6, 5, 5)
    two_layers = nn.Sequential(nn.Conv2d(6, 9, 3, padding=1), nn.Tanh(), nn.Conv2d(9, 6, 3, padding=1))
    for transform in (nn.Linear(5, 5), two_layers):
        calls = []
        transform.register_forward_hook(lambda *call, calls=calls: calls.append(call))
        unit = as_module(answer(transform))
        output = _output(unit, x, x.shape)
        if not calls:
            raise Wrong("The given transform is never called: F is the argument, not a layer of your own.")
        with torch.no_grad():
            if not near(output, transform(x) + x):
                reject(output, UNIT_MISTAKES, near, transform, x)
                raise Wrong("The output is not the sum of F(x) and x: compare forward with the figure.")
        own = set(unit.parameters())
        if not own:
            raise Wrong("The unit has no parameters: make the transform an attribute, where an optimizer sees F's.")
        if not own >= set(transform.parameters()):
            raise Wrong("The unit holds a copy of the transform: keep the module that it was given.")
        _need_same_gradient(lambda x, f=transform: f(x) + x, unit, x, transform.parameters())


UNIT_MISTAKES = {
    "The shortcut is missing: it returns F(x), an entirely new value.": lambda f, x: f(x),
    "It subtracts x: F(x) is added to the previous value.": lambda f, x: f(x) - x,
    "It subtracts F(x): F(x) is added to the previous value.": lambda f, x: x - f(x),
    "It multiplies: F(x) is added to the previous value.": lambda f, x: f(x) * x,
    "It adds F(x) twice, and never x.": lambda f, x: 2 * f(x),
    "It adds x twice.": lambda f, x: f(x) + 2 * x,
    "F is applied to its own output: x goes through it once.": lambda f, x: f(f(x)) + x,
    "There is a ReLU after the addition, but this unit only adds.": lambda f, x: F.relu(f(x) + x),
    "There is a ReLU on F(x), but this unit only adds.": lambda f, x: F.relu(f(x)) + x,
    "It returns the mean of F(x) and x: do not halve the sum.": lambda f, x: (f(x) + x) / 2,
}


def _output(module: nn.Module, x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The output for x; raises `Wrong` if the module modifies x, or does not return a tensor of that shape."""
    given = x.clone()
    with torch.no_grad():
        output = module(given)
    if not torch.equal(given, x):
        raise Wrong("It modifies its input in place, with += or an inplace ReLU: make a new tensor.")
    if not isinstance(output, torch.Tensor):
        raise Wrong(f"forward returns {type(output).__name__}, not a tensor: does it end with a return?")
    if output.numel() == 2 * shape.numel():
        raise Wrong("It puts F(x) and the shortcut side by side, but they are added.")
    if output.shape != shape:
        raise Wrong(f"The output has shape {tuple(output.shape)}, but F(x) has {tuple(shape)}.")
    return output


def _need_same_gradient(ours: Callable, theirs: Callable, x: torch.Tensor, parameters: Sequence = ()) -> None:
    """Raise `Wrong` unless the gradient reaches x, and `parameters`, through both F and the shortcut."""
    x = x.clone().requires_grad_()
    inputs, gradients = [x, *parameters], []
    for module in (ours, theirs):
        with torch.enable_grad():
            output = module(x * 1)
            weights = torch.linspace(-1, 2, output.numel()).view_as(output)
            total = (output * weights).sum() + 0 * x.sum()  # has a gradient in any case
            gradients.append(torch.autograd.grad(total, inputs, allow_unused=True))
    for expected, given in zip(*gradients, strict=True):
        if given is None or not near(given, expected):
            raise Wrong("The gradient does not pass through F and the shortcut: is there a no_grad, detach or .data?")


@exercise
def insert_identity(answer: Callable) -> None:
    """plain_model -> a copy with one more block at the end of each stage, and the same outputs."""
    torch.set_default_dtype(torch.float64)  # rounding in float32 would hide batch norm's eps
    for depth, num_classes in ((8, 7), (14, 4)):
        torch.manual_seed(depth)
        plain = _vary_norms(cifar_resnet(depth, num_classes, residual=False)).eval()
        before = copy.deepcopy(plain)
        deeper = as_module(returned(answer(plain)), "It must return a network, as plain_model is one.")
        _need_the_original(plain, before, deeper)
        _need_new_blocks(deeper, before)
        _need_identity(deeper, before, torch.randn(4, 3, 16, 16))
        if not all(parameter.requires_grad for parameter in deeper.parameters()):
            raise Wrong("A layer cannot be trained: one of its parameters does not require a gradient.")


def _need_the_original(plain: nn.Module, before: nn.Module, deeper: nn.Module) -> None:
    if len(list(plain.modules())) != len(list(before.modules())):
        raise Wrong("The original network was modified and has the new layers too: work on a deep copy.")
    if deeper is plain:
        raise Wrong("It returns the original network itself: return a deeper copy, and leave the original unchanged.")
    state = before.state_dict()
    if any(not torch.equal(value, state[name]) for name, value in plain.state_dict().items()):
        raise Wrong("The original's weights or running statistics were modified: did it run in training mode?")
    if any(module.training for module in plain.modules()):
        raise Wrong("The original network was put into training mode: leave it unchanged.")
    if set(plain.parameters()) & set(deeper.parameters()):
        raise Wrong("The deeper network shares layers with the original, and training would change both: copy deeply.")


def _need_new_blocks(deeper: nn.Module, before: nn.Module) -> None:
    if any(isinstance(block, BasicBlock) and not isinstance(block, PlainBlock) for block in deeper.modules()):
        raise Wrong("A new block has a shortcut, but the claim is about plain networks: use plain blocks.")
    images = torch.randn(2, 3, 16, 16)
    ours, theirs = (trace_layers(copy.deepcopy(network).eval(), images) for network in (before, deeper))
    if theirs.error is not None:
        raise theirs.error
    if len(theirs.convolutions) == len(ours.convolutions):
        raise Wrong("It is not deeper: images pass through no new convolution. Only blocks inside a stage run.")
    for name in ("layer1", "layer2", "layer3"):
        stages = [getattr(network, name, nn.Identity()) for network in (before, deeper)]
        old, new = (sum(isinstance(module, nn.Conv2d) for module in stage.modules()) for stage in stages)
        if new != old + 2:
            problem = "each stage gets one more block of two layers" if new < old + 2 else "one new block is enough"
            raise Wrong(f"{name} had {old} convolutions, and now has {new}: {problem}.")


def _need_identity(deeper: nn.Module, before: nn.Module, images: torch.Tensor) -> None:
    """Raise `Wrong` unless the new layers pass on their input, so that the outputs are the same as before."""

    def is_same(network: nn.Module) -> bool:
        with torch.no_grad():
            expected, given = before(images), copy.deepcopy(network)(images)  # a pass may update the statistics
        return given.shape == expected.shape and torch.allclose(given, expected, rtol=1e-8, atol=1e-10)

    if is_same(deeper):
        return
    in_evaluation_mode = copy.deepcopy(deeper).eval()
    if is_same(in_evaluation_mode):
        raise Wrong("The new layers are in training mode, in which batch norm uses the statistics of the batch.")
    trace = trace_layers(in_evaluation_mode, images)
    old_weights = [layer.weight for layer in before.modules() if isinstance(layer, nn.Conv2d)]
    convolutions = [c for c in trace.convolutions if not any(torch.equal(c.weight, old) for old in old_weights)]
    norms = [step for step in trace.norms if step.source in convolutions]
    if any(not layer.weight.any() for layer in [*convolutions, *(step.layer for step in norms)]):
        raise Wrong("A new layer returns zeros: in a residual block that is the identity, but not in a plain one.")
    for layer in convolutions:
        if not torch.allclose(layer.weight.abs(), nn.init.dirac_(torch.empty_like(layer.weight))):
            raise Wrong("A new convolution changes its input: look at stage[-1].conv1.weight[0, 0] and weight[0, 1].")
    for step in norms:
        norm = step.layer
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        if ((norm.bias - norm.running_mean * scale).abs() > 1e-3).any():
            raise Wrong("A new batch norm shifts its input: does its bias cancel what running_mean subtracts?")
        if (norm(step.input) < -1e-6).any():
            raise Wrong("A new layer returns negative values, which ReLU cuts off: the input of a block has none.")
        if ((scale - 1).abs() > 0.05).any():
            raise Wrong("A new batch norm scales its input: it divides by √running_var and multiplies by its weight.")
        if ((scale - 1).abs() > 1e-12).any():
            raise Wrong("The outputs differ slightly: batch norm divides by √(running_var + eps), not by √running_var.")
    raise Wrong("Its outputs differ from the original's: compare the input of a new block with its output.")


@torch.no_grad()
def _vary_norms(model: nn.Module) -> nn.Module:
    """Give batch norms weights and statistics as after training, so that none passes on its input unchanged."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.normal_(0, 0.2)
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    return model


@exercise
def StudentBasicBlock(answer: Callable) -> None:  # noqa: N802
    """StudentBasicBlock(in_channels, out_channels, stride): relu(F(x) + shortcut(x)) with two 3×3 convolutions."""
    cases = [(8, 8, 1), (8, 16, 2), (8, 16, 1), (8, 8, 2)]
    _check_block(answer, cases, lambda i, o, stride: _torchvision_block(trusted.BasicBlock, i, o, o, stride))


@exercise
def StudentBottleneck(answer: Callable) -> None:  # noqa: N802
    """StudentBottleneck(in_channels, width, out_channels, stride): 1×1, 3×3 with the stride, 1×1."""
    cases = [(16, 4, 16, 1), (16, 8, 32, 2), (16, 8, 32, 1), (16, 4, 16, 2), (12, 6, 12, 1)]
    _check_block(answer, cases, partial(_torchvision_block, trusted.Bottleneck))


def _torchvision_block(kind: type, in_channels: int, width: int, out_channels: int, stride: int) -> nn.Module:
    class Block(kind):
        expansion = out_channels // width

    projection = nn.Sequential(trusted.conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
    changes_shape = stride != 1 or in_channels != out_channels
    return Block(in_channels, width, stride, projection if changes_shape else None)


def _check_block(answer: Callable, cases: Sequence[tuple], make_ours: Callable) -> None:
    """Compare a block with torchvision's in each case, in evaluation and in training mode."""
    for case in cases:
        torch.manual_seed(0)
        x = torch.randn(3, case[0], 8, 8)
        ours = _vary_norms(make_ours(*case)).eval()
        theirs = as_module(answer(*case)).eval()
        try:
            trace = trace_layers(theirs, x)
            _need_layers(trace, ours)
            _output(theirs, x, ours(x).shape)
            _need_all_in_use(theirs, trace)
            copy_weights(ours, theirs, x)
            _need_same_outputs(ours, theirs, x, BLOCK_MISTAKES)
            _need_same_gradient(ours, theirs, x)
        except Wrong as wrong:
            raise Wrong(f"With ({', '.join(map(str, case))}): {wrong}") from None


def _pairs(block: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """F's convolutions in torchvision's block, each with its batch norm."""
    numbers = (1, 2, 3) if hasattr(block, "conv3") else (1, 2)
    return [(getattr(block, f"conv{number}"), getattr(block, f"bn{number}")) for number in numbers]


def _need_layers(trace: Trace, ours: nn.Module) -> None:
    """Raise `Wrong` unless the layers that ran are those of F and its shortcut.

    Only then raises the error that ended the run, since a wrong layer is usually its cause.
    """
    expected = [convolution for convolution, _ in _pairs(ours)]
    in_channels, out_channels = expected[0].in_channels, expected[-1].out_channels
    changes_shape = ours.downsample is not None
    shortcuts, layers = [], []
    for layer in trace.convolutions:
        is_shortcut = (layer.kernel_size, layer.in_channels, layer.out_channels) == ((1, 1), in_channels, out_channels)
        (shortcuts if is_shortcut else layers).append(layer)
    if not changes_shape and len(layers) < len(expected):
        shortcuts, layers = [], trace.convolutions  # a 1×1 convolution in F
    if shortcuts and not changes_shape:
        raise Wrong("There is a projection, but F keeps the shape: x itself can be added.")
    if len(set(layers)) < len(layers):
        raise Wrong("One convolution runs twice, so two layers share their weights: make one for each layer.")
    for layer in trace.convolutions:
        if layer.out_channels not in (in_channels, *(conv.out_channels for conv in expected)):
            raise Wrong(f"A convolution returns {layer.out_channels} channels: are all arguments used as they are?")
    kernels = [layer.kernel_size[0] for layer in layers]
    if kernels != [layer.kernel_size[0] for layer in expected]:
        if trace.error is not None and len(layers) < len(expected):
            raise trace.error
        found = ", ".join(f"{kernel}×{kernel}" for kernel in kernels) or "none"
        raise Wrong(f"F's convolutions are {found}, in running order: compare with the figure.")
    _need_strides(layers, [layer.stride[0] for layer in expected])
    for number, (layer, right) in enumerate(zip(layers, expected, strict=True), start=1):
        if layer.padding not in (right.padding, "same"):
            raise Wrong(f"F's convolution {number} has padding {layer.padding}, which changes the size of the map.")
    if changes_shape and not shortcuts:
        stride = ours.stride
        what = "the channels" if stride == 1 else "the size" if in_channels == out_channels else "channels and size"
        raise Wrong(f"The shortcut is not projected, but F changes {what}: x cannot be added as it is.")
    if shortcuts and shortcuts[0].stride[0] != ours.stride:
        raise Wrong(f"The shortcut has stride {shortcuts[0].stride[0]}, but F has {ours.stride}.")
    _need_norms(trace, shortcuts)
    if trace.error is not None:
        raise trace.error


def _need_strides(layers: list[nn.Conv2d], expected: list[int]) -> None:
    found = [layer.stride[0] for layer in layers]
    if found == expected:
        return
    if max(found) == 1:
        raise Wrong(f"The stride is not used: no convolution of F has the stride {max(expected)}.")
    if sum(stride > 1 for stride in found) > 1:
        raise Wrong("More than one convolution of F has the stride: each of them would shrink the image.")
    place = found.index(max(found))
    if max(expected) == 1:
        raise Wrong(f"F's convolution {place + 1} has stride {max(found)}: use the argument.")
    kernel = layers[place].kernel_size[0]
    skips = ", which skips three of four pixels" if kernel == 1 else ""
    raise Wrong(f"The wrong convolution has the stride: F's convolution {place + 1}, a {kernel}×{kernel}{skips}.")


def _need_norms(trace: Trace, shortcuts: list[nn.Conv2d]) -> None:
    """Raise `Wrong` unless every convolution has no bias, and a batch norm of its own right after it."""
    if any(layer.bias is not None for layer in trace.convolutions):
        raise Wrong("A convolution has a bias, but the batch norm after it subtracts the mean again: leave it out.")
    norms, sources = [step.layer for step in trace.norms], [step.source for step in trace.norms]
    if len(set(norms)) < len(norms):
        raise Wrong("One batch norm runs twice: each convolution needs its own, since each output has its own mean.")
    if any(not isinstance(source, nn.Conv2d) for source in sources):
        raise Wrong("A batch norm is not right after a convolution: the order is convolution, batch norm, ReLU.")
    if trace.error is not None:
        return
    missing = [layer for layer in trace.convolutions if layer not in sources]
    if set(missing) & set(shortcuts):
        raise Wrong("The shortcut's projection has no batch norm, but F(x), to which it is added, ends in one.")
    if missing:
        raise Wrong(f"Batch norm is missing after {len(missing)} of {len(trace.convolutions)} convolutions: add it.")


def _need_all_in_use(model: nn.Module, trace: Trace) -> None:
    used = {parameter for step in trace.steps for parameter in step.layer.parameters()}
    unused = [name for name, parameter in model.named_parameters() if parameter not in used]
    if unused:
        raise Wrong(f"A layer is defined but never used, {unused[0].rpartition('.')[0]}: define only what runs.")


@torch.no_grad()
def _need_same_outputs(ours: nn.Module, theirs: nn.Module, x: torch.Tensor, mistakes: dict[str, Callable]) -> None:
    """Raise `Wrong` unless the outputs are the same in evaluation mode, then in training mode. Both stay in that."""
    need_same_output(theirs.eval()(x.clone()), ours.eval(), x, mistakes)
    if not near(theirs.train()(x.clone()), ours.train()(x)):
        raise Wrong("Its outputs are wrong only in training mode: does more than batch norm depend on the mode?")


def _block(
    block: nn.Module, x: torch.Tensor, join=torch.add, last=F.relu, on_f=unchanged, on_shortcut=unchanged, relus=(1, 2)
) -> torch.Tensor:
    """torchvision's block with other functions in some places, and ReLU only after the given layers of F."""
    f = x
    pairs = _pairs(block)
    for number, (convolution, norm) in enumerate(pairs, start=1):
        f = norm(convolution(f))
        if number in relus and number < len(pairs):
            f = F.relu(f)
    shortcut = x if block.downsample is None else block.downsample(x)
    return last(join(on_f(f), on_shortcut(shortcut)))


def _after_one_layer(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = F.relu(block.bn1(block.conv1(x)))
    return x if hasattr(block, "conv3") else F.relu(block.bn2(block.conv2(x)) + x)


BLOCK_MISTAKES = {
    "The shortcut is missing: that is a plain block.": partial(_block, join=lambda f, s: f),
    "The shortcut and the last ReLU are missing.": partial(_block, join=lambda f, s: f, last=unchanged),
    "There is no ReLU after the addition.": partial(_block, last=unchanged),
    "The last ReLU comes before the addition, on F(x), not after it.": partial(_block, on_f=F.relu, last=unchanged),
    "There is another ReLU on F(x), before the addition.": partial(_block, on_f=F.relu),
    "There is a ReLU on the shortcut: it should pass on x as it is.": partial(_block, on_shortcut=F.relu),
    "F(x) and the shortcut each have a ReLU before the addition: there is one after it.": (
        partial(_block, on_f=F.relu, on_shortcut=F.relu, last=unchanged)
    ),
    "There is a ReLU on x before everything else: use x as it is.": lambda block, x: _block(block, F.relu(x)),
    "There is no ReLU between the convolutions: without it they can do no more than one.": partial(_block, relus=()),
    "There is no ReLU between the first and the second convolution.": partial(_block, relus=(2,)),
    "There is no ReLU between the second and the third convolution.": partial(_block, relus=(1,)),
    "There is no ReLU at all.": partial(_block, relus=(), last=unchanged),
    "It subtracts the shortcut: F(x) and the shortcut are added.": partial(_block, join=torch.sub),
    "It subtracts F(x): F(x) and the shortcut are added.": partial(_block, join=lambda f, s: s - f),
    "F(x) is added to itself: was x overwritten before the shortcut used it?": partial(_block, join=lambda f, s: 2 * f),
    "The shortcut starts after the first layer: was x overwritten before it was kept?": _after_one_layer,
}


@exercise
def make_stage(answer: Callable) -> None:
    """(block, in_channels, out_channels, num_blocks, stride) -> nn.Sequential of blocks."""
    ran: list[nn.Module] = []

    class Block(nn.Module):
        """Records its arguments, and when it runs."""

        def __init__(self, in_channels: int, out_channels: int, stride: int):
            super().__init__()
            self.arguments = (in_channels, out_channels, stride)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ran.append(self)
            return x - 101  # negative, so that a ReLU after it shows

    def blocks(in_channels: int, out_channels: int, num_blocks: int, stride: int) -> list[tuple]:
        """The (in_channels, out_channels, stride) of each block, in the order in which the answer runs them."""
        ran.clear()
        stage = returned(answer(Block, in_channels, out_channels, num_blocks, stride))
        if not isinstance(stage, nn.Sequential):
            raise Wrong(f"It returns a {type(stage).__name__}: return an nn.Sequential, which runs its blocks.")
        x = torch.full((2, in_channels, 4, 4), 100.0)
        output = stage(x)
        if not ran:
            raise Wrong("It does not use the given block: call block(in_channels, out_channels, stride).")
        if len(set(ran)) < len(ran):
            raise Wrong("One block is in the stage several times, so they share weights: make a new one each time.")
        if not torch.equal(output, x - 101 * len(ran)):
            raise Wrong("The stage does more than run its blocks: a block ends in its own ReLU.")
        return [block.arguments for block in ran]

    def right(i: int, o: int, n: int, s: int) -> list[tuple]:
        return [(i, o, s)] + [(o, o, 1)] * (n - 1)

    mistakes = {
        "Every block has the stride: only the first should.": lambda i, o, n, s: [(i, o, s)] + [(o, o, s)] * (n - 1),
        "The second block has in_channels: what does it get?": lambda i, o, n, s: [(i, o, s)] + [(i, o, 1)] * (n - 1),
        "All blocks are alike: only the first changes channels and size.": lambda i, o, n, s: [(i, o, s)] * n,
        "The stride is not used: the first block must have it.": lambda i, o, n, s: right(i, o, n, 1),
        "The first block has a fixed stride of 2: use the argument.": lambda i, o, n, s: right(i, o, n, 2),
        "There is one block too many: the first one counts too.": lambda i, o, n, s: right(i, o, n + 1, s),
        "There is one block too few.": lambda i, o, n, s: right(i, o, n - 1, s),
        "There are always two blocks: use num_blocks.": lambda i, o, n, s: right(i, o, 2, s),
        "There is only one block: num_blocks is not used.": lambda i, o, n, s: right(i, o, 1, s),
        "The last block changes the shape: the first should.": lambda i, o, n, s: [(i, i, 1)] * (n - 1) + [(i, o, s)],
    }
    cases = [(16, 32, 3, 2), (16, 16, 2, 1), (8, 32, 4, 1), (8, 8, 1, 2), (8, 24, 1, 3)]
    expect(blocks, cases, right, mistakes, name="make_stage")


@exercise
def StudentResNet18(answer: Callable) -> None:  # noqa: N802
    """StudentResNet18(num_classes): the slide's 18 layers; returns logits (N, num_classes)."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    theirs = as_module(answer(num_classes=7)).eval()
    trace = trace_layers(theirs, images)
    _need_stages(trace)
    _need_head(theirs, trace)
    _output(theirs, images, trace.output.shape)
    _need_all_in_use(theirs, trace)
    ours = _vary_norms(torchvision.models.resnet18(num_classes=7))
    copy_weights(ours, theirs, images)
    _need_same_outputs(ours, theirs, images, NETWORK_MISTAKES)
    larger = torch.randn(2, 3, 96, 96)
    output = trace_layers(theirs.eval(), larger).output
    if output is None or not near(output, ours.eval()(larger)):
        raise Wrong("It is right for images of 64×64 pixels, but not for 96×96: average over the whole last map.")


def _need_stages(trace: Trace) -> None:
    """Raise `Wrong` unless the convolutions are the first one and those of the four stages."""
    if not trace.convolutions:
        raise trace.error or Wrong("No convolution runs.")
    stem, *others = trace.convolutions
    kernel, stride = stem.kernel_size[0], stem.stride[0]
    if (kernel, stride, stem.out_channels, stem.padding) != (7, 2, 64, (3, 3)):
        found = f"{kernel}×{kernel} with stride {stride}, {stem.out_channels} filters and padding {stem.padding}"
        raise Wrong(f"The first convolution is {found}: compare with the text above.")
    layers = [layer for layer in others if layer.kernel_size == (3, 3)]
    projections = [layer for layer in others if layer.kernel_size == (1, 1)]
    is_complete = trace.error is None
    size = next((step.input.shape[-1] for step in trace.steps if step.layer in layers), 16)
    if size != 16:
        hint = "the max pool is missing" if size == 32 else "look at the max pool's kernel, stride and padding"
        raise Wrong(f"For images of 64×64 the first block receives maps of {size}×{size}, not a quarter: {hint}.")
    if is_complete and len(layers) != 16:
        raise Wrong(f"Images pass through {len(layers)} 3×3 convolutions: how many do four stages of two blocks have?")
    filters = [layer.out_channels for layer in layers]
    if is_complete and filters != [64] * 4 + [128] * 4 + [256] * 4 + [512] * 4:
        raise Wrong(f"The 3×3 convolutions have {filters} filters: each stage has twice those of the one before.")
    strides = [layer.stride[0] for layer in layers]
    expected = ([1] * 4 + [2, 1, 1, 1] * 3)[: len(strides)]
    if 2 in strides[:4]:
        raise Wrong("The stages' strides are wrong: the first stage halves the image, as the pool has just done.")
    if 2 not in strides and 2 in expected:
        raise Wrong("The stages' strides are wrong: no stage halves the image.")
    if strides != expected:
        raise Wrong(f"The stages' strides are wrong: those of the 3×3 convolutions are {strides}, in order.")
    if is_complete and not projections:
        raise Wrong("No shortcut has a projection: are the blocks plain, or how does x get its new shape?")
    if is_complete and len(projections) > 3:
        raise Wrong(f"{len(projections)} shortcuts have a projection: only a block that changes the shape needs one.")
    _need_norms(trace, projections)


def _need_head(model: nn.Module, trace: Trace) -> None:
    linears = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if len(linears) > 1:
        raise Wrong(f"It has {len(linears)} fully-connected layers: there is only the one to the output classes.")
    if linears and linears[0].in_features != 512:
        raise Wrong(f"The last layer has {linears[0].in_features} inputs: global average pooling is missing.")
    if trace.error is not None:
        if len(trace.convolutions) < 20:
            raise trace.error
        raise Wrong(f"Do you average over the whole map of the last stage? It raised {one_line(trace.error)}")
    need_logits(trace.output, num_classes=7)


def _resnet(
    net: nn.Module, x: torch.Tensor, block=nn.Module.__call__, relu=F.relu, pool=F.max_pool2d, average=torch.mean
) -> torch.Tensor:
    """torchvision's ResNet with other functions in some places."""
    x = pool(relu(net.bn1(net.conv1(x))), 3, 2, 1)
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        for layer in stage:
            x = block(layer, x)
    return net.fc(average(x, dim=(2, 3)))


NETWORK_MISTAKES = LOGITS_MISTAKES | {
    "There is no ReLU after the first convolution and its batch norm.": partial(_resnet, relu=unchanged),
    "The pool takes the mean: it should take the largest value.": partial(_resnet, pool=F.avg_pool2d),
    "The max pool has another kernel.": partial(_resnet, pool=lambda x, *window: F.max_pool2d(x, 2, 2)),
    "It takes the largest value of each last map, not the mean.": partial(_resnet, average=torch.amax),
}
NETWORK_MISTAKES |= {f"In its blocks: {text}": partial(_resnet, block=wrong) for text, wrong in BLOCK_MISTAKES.items()}
