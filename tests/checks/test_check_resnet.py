"""Answers to lesson 3 as students write them."""

import copy
import math

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models import resnet as trusted

from cnnlesson import models
from cnnlesson.checks import resnet as check
from cnnlesson.models import cifar_resnet, insert_identity_blocks
from cnnlesson.models.resnet import PlainBlock


def unit(forward, keep=lambda transform: transform):
    """A student's residual unit with this forward, which keeps `keep(transform)`."""

    class Answer(nn.Module):
        def __init__(self, transform):
            super().__init__()
            self.f = keep(transform)

        def forward(self, x):
            return forward(self.f, x)

    return Answer


def add_in_place(f, x):
    x += f(x)
    return x


def without_gradient(f, x):
    with torch.no_grad():
        residual = f(x)
    return residual + x


class OwnLayer(nn.Module):
    def __init__(self, transform):
        super().__init__()
        self.f = nn.Identity()

    def forward(self, x):
        return self.f(x) + x


class InAList(nn.Module):
    """A unit that keeps F in a list."""

    def __init__(self, transform):
        super().__init__()
        self.layers = [transform]

    def forward(self, x):
        return self.layers[0](x) + x


class InAFunction(nn.Module):
    """A unit that keeps F in a function."""

    def __init__(self, transform):
        super().__init__()
        self.add = lambda x: transform(x) + x

    def forward(self, x):
        return self.add(x)


class ListOfStages(nn.Module):
    """A ResNet-18 that keeps its stages in a list."""

    def __init__(self, num_classes):
        super().__init__()
        network = models.resnet18(num_classes)
        self.beginning = nn.Sequential(network.conv1, network.bn1, nn.ReLU(), network.maxpool)
        self.stages = [network.layer1, network.layer2, network.layer3, network.layer4]
        self.fc = network.fc

    def forward(self, images):
        x = self.beginning(images)
        for stage in self.stages:
            x = stage(x)
        return self.fc(x.mean(dim=(2, 3)))


def add_out(f, x):
    out = f(x)
    out = out + x
    return out


def relu_on(x):
    return F.relu(x)


def same(x):
    return x


def block(  # one option per mistake
    join=lambda f, s: f + s,
    last=relu_on,
    on_f=same,
    on_shortcut=same,
    first=same,
    between=relu_on,
    between2=None,
    strides=None,
    shortcut_stride=None,
    projects=lambda i, o, s: s != 1 or i != o,
    projection_norm=True,
    projection_kernel=1,
    norm=True,
    bias=False,
    padding=1,
    in_place=False,
    spare=False,
    late_shortcut=False,
    shared_norm=False,
    shared_convolution=False,
    norm_after_relu=False,
    layers=2,
    uses_out=True,
    kernels=None,
    dropout=None,
):
    """A student's block: two layers (in_channels, out_channels, stride), or three with (in, width, out, stride)."""

    class Answer(nn.Module):
        def __init__(self, in_channels, *arguments):
            super().__init__()
            *width, out_channels, stride = arguments
            if layers == 2:
                channels = [in_channels, out_channels, out_channels]
                sizes, steps = [3, 3], [stride, 1]
            else:
                if not uses_out:
                    out_channels = 4 * width[0]
                channels = [in_channels, *width, *width, out_channels]
                sizes, steps = [1, 3, 1], [1, stride, 1]
            steps = strides(stride) if strides else steps
            sizes = kernels or sizes
            self.convolutions = nn.ModuleList(
                nn.Conv2d(i, o, k, s, padding * (k // 2), bias=bias)
                for i, o, k, s in zip(channels, channels[1:], sizes, steps, strict=False)
            )
            if shared_convolution and channels[0] == channels[1]:
                self.convolutions[1] = self.convolutions[0]
            self.norms = nn.ModuleList(nn.BatchNorm2d(o) if norm else nn.Identity() for o in channels[1:])
            if shared_norm:
                self.norms[1] = self.norms[0]
            self.projection = nn.Identity()
            if projects(in_channels, out_channels, stride):
                step = stride if shortcut_stride is None else shortcut_stride
                k = projection_kernel
                self.projection = nn.Sequential(
                    nn.Conv2d(in_channels, out_channels, k, step, k // 2, bias=bias),
                    nn.BatchNorm2d(out_channels) if projection_norm and norm else nn.Identity(),
                )
            if spare:
                self.spare = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.drop = nn.Dropout(dropout) if dropout else nn.Identity()

        def forward(self, x):
            x = first(x)
            shortcut = x
            relus = [between, between2 or between, same][-len(self.norms) :]
            for conv, bn, relu in zip(self.convolutions, self.norms, relus, strict=True):
                x = bn(relu(conv(x))) if norm_after_relu else relu(bn(conv(x)))
            shortcut = self.projection(x if late_shortcut else shortcut)
            if in_place:
                shortcut += x
                return last(shortcut)
            return self.drop(last(join(on_f(x), on_shortcut(shortcut))))

    return Answer


def basic(**options):
    return block(**options)


def bottleneck(**options):
    return block(layers=3, **options)


def always(in_channels, out_channels, stride):
    return True


def never(in_channels, out_channels, stride):
    return False


class TorchvisionBlock(trusted.BasicBlock):
    def __init__(self, in_channels, out_channels, stride):
        downsample = None
        if stride != 1 or in_channels != out_channels:
            downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        super().__init__(in_channels, out_channels, stride, downsample)


class ShortcutFirst(nn.Module):
    """A bottleneck by a student who begins with the shortcut, and modifies the block's own tensors in place."""

    def __init__(self, in_channels, width, out_channels, stride):
        super().__init__()
        self.skip = None
        if (in_channels, stride) != (out_channels, 1):
            self.skip = nn.Conv2d(in_channels, out_channels, (1, 1), (stride, stride), bias=False)
            self.skip_norm = nn.BatchNorm2d(out_channels)
        self.out = nn.Sequential(nn.Conv2d(width, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.mid = nn.Sequential(
            nn.Conv2d(width, width, 3, stride, padding="same" if stride == 1 else 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.squeeze = nn.Sequential(nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        identity = x if self.skip is None else self.skip_norm(self.skip(x))
        out = self.out(self.mid(self.squeeze(x).relu_()))
        out += identity
        return torch.relu_(out)


def stage_by_hand(block, in_channels, out_channels, num_blocks, stride):
    stage = nn.Sequential()
    for number in range(num_blocks):
        if number > 0:
            in_channels, stride = out_channels, 1
        stage.append(block(in_channels=in_channels, out_channels=out_channels, stride=stride))
    return stage


def stage(blocks):
    """A student's make_stage: `blocks(i, o, n, s)` lists the arguments of the blocks."""

    def make(block, in_channels, out_channels, num_blocks, stride):
        return nn.Sequential(*(block(*shape) for shape in blocks(in_channels, out_channels, num_blocks, stride)))

    return make


def repeated(block, in_channels, out_channels, num_blocks, stride):
    rest = block(out_channels, out_channels, 1)
    return nn.Sequential(block(in_channels, out_channels, stride), *[rest] * (num_blocks - 1))


def with_relus(block, in_channels, out_channels, num_blocks, stride):
    return nn.Sequential(*stage_by_hand(block, in_channels, out_channels, num_blocks, stride), nn.ReLU())


right_stage = stage(lambda i, o, n, s: [(i, o, s), *[(o, o, 1)] * (n - 1)])


def network(  # one option per mistake
    stem=lambda: nn.Conv2d(3, 64, 7, 2, 3, bias=False),
    stem_norm=True,
    stem_relu=True,
    pool=lambda: nn.MaxPool2d(3, 2, 1),
    make_block=TorchvisionBlock,
    strides=(1, 2, 2, 2),
    filters=(64, 128, 256, 512),
    counts=(2, 2, 2, 2),
    average=lambda: nn.AdaptiveAvgPool2d(1),
    inputs=512,
    classes=None,
    extra=(),
    hidden=False,
    make_stage=right_stage,
):
    """A student's ResNet-18, with a mistake if an option asks for one."""

    class Answer(nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            layers = [stem(), *([nn.BatchNorm2d(64)] if stem_norm else []), *([nn.ReLU()] if stem_relu else []), pool()]
            before = 64
            for after, count, stride in zip(filters, counts, strides, strict=True):
                layers.append(make_stage(make_block, before, after, count, stride))
                before = after
            layers += [average(), nn.Flatten()]
            if hidden:
                layers += [nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, num_classes)]
            else:
                layers.append(nn.Linear(inputs, classes or num_classes))
            self.layers = nn.Sequential(*layers, *extra)

        def forward(self, images):
            return self.layers(images)

    return Answer


def identity_block(channels, convolution=nn.init.dirac_, norm=None, eval=True):
    block = PlainBlock(channels, channels, stride=1)
    for number in (1, 2):
        convolution(getattr(block, f"conv{number}").weight)
        (norm or undo_eps)(getattr(block, f"bn{number}"))
    return block.train(not eval)


def undo_eps(norm):
    norm.weight.data.fill_((1 + norm.eps) ** 0.5)


def inserted(make_block=identity_block, copied=copy.deepcopy, after=same, stages=("layer1", "layer2", "layer3"), n=1):
    """A student's insert_identity."""

    def answer(plain_model):
        deeper = copied(plain_model)
        for name in stages:
            blocks = getattr(deeper, name)
            for _ in range(n):
                blocks.append(make_block(blocks[-1].conv2.out_channels))
        return after(deeper)

    return answer


def by_loading(plain_model):
    """A new network with the weights of the old one; running_var makes up for batch norm's eps."""
    blocks = len(plain_model.layer1)
    deeper = cifar_resnet(6 * (blocks + 1) + 2, plain_model.fc.out_features, residual=False)
    deeper.load_state_dict(plain_model.state_dict(), strict=False)
    for stage in (deeper.layer1, deeper.layer2, deeper.layer3):
        for layer in stage[-1].modules():
            if isinstance(layer, nn.Conv2d):
                with torch.no_grad():
                    layer.weight.zero_()
                    for channel in range(layer.out_channels):
                        layer.weight[channel, channel, 1, 1] = 1
            elif isinstance(layer, nn.BatchNorm2d):
                layer.running_var.fill_(1 - layer.eps)
    return deeper.eval()


def rebuilt_of_the_same_layers(plain_model):
    deeper = cifar_resnet(8, plain_model.fc.out_features, residual=False).eval()
    for name, channels in (("layer1", 16), ("layer2", 32), ("layer3", 64)):
        setattr(deeper, name, nn.Sequential(*getattr(plain_model, name), identity_block(channels)))
    for name in ("conv1", "bn1", "fc"):
        setattr(deeper, name, getattr(plain_model, name))
    return deeper


def random_block(channels):
    return PlainBlock(channels, channels, stride=1).eval()


def zero_gamma(norm):
    nn.init.zeros_(norm.weight)


def scaled(norm):
    norm.weight.data.fill_(2.0)


def shifted(norm):
    undo_eps(norm)
    norm.bias.data.fill_(0.5)


def minus_dirac(weight):
    nn.init.dirac_(weight)
    weight.data.neg_()


def leave(norm):
    pass


def frozen(channels):
    return identity_block(channels).requires_grad_(False)


def residual_block(channels):
    block = models.BasicBlock(channels, channels, stride=1).eval()
    nn.init.zeros_(block.bn2.weight)
    return block


def pass_in_training_mode(plain_model):
    plain_model.train()(torch.randn(8, 3, 16, 16))
    return inserted()(plain_model.eval())


def left_in_training_mode(plain_model):
    deeper = inserted()(plain_model)
    plain_model.train()
    return deeper


def appended_outside(plain_model):
    deeper = copy.deepcopy(plain_model)
    deeper.layer4 = nn.Sequential(identity_block(64))
    return deeper


# Mistakes in blocks of both kinds, as options of `block`.
BLOCK_MISTAKES = [
    ({"join": lambda f, s: f}, "shortcut is missing"),
    ({"projects": never}, "shortcut is not projected, but F changes channels and size"),
    ({"projects": lambda i, o, s: s != 1}, "shortcut is not projected, but F changes the channels"),
    ({"projects": lambda i, o, s: i != o}, "shortcut is not projected, but F changes the size"),
    ({"projects": always}, "There is a projection, but F keeps the shape"),
    ({"projection_norm": False}, "projection has no batch norm"),
    ({"shortcut_stride": 1}, "shortcut has stride 1, but F has 2"),
    ({"spare": True}, "never used, spare"),
    ({"on_f": relu_on, "last": same}, "last ReLU comes before the addition, on F(x)"),
    ({"on_f": relu_on}, "another ReLU on F(x), before the addition"),
    ({"last": same}, "no ReLU after the addition"),
    ({"on_shortcut": relu_on}, "ReLU on the shortcut"),
    ({"on_f": relu_on, "on_shortcut": relu_on, "last": same}, "F(x) and the shortcut each have a ReLU"),
    ({"first": relu_on}, "ReLU on x before"),
    ({"between": same}, "no ReLU between the convolutions"),
    ({"between": same, "last": same}, "no ReLU at all"),
    ({"norm": False}, "Batch norm is missing"),
    ({"bias": True}, "has a bias"),
    ({"padding": 0}, "padding"),
    ({"in_place": True}, "in place"),
    ({"first": lambda x: x.relu_()}, "in place"),
    ({"join": lambda f, s: torch.cat([f, s], dim=1)}, "side by side"),
    ({"join": lambda f, s: f - s}, "subtracts the shortcut"),
    ({"join": lambda f, s: s - f}, "subtracts F(x)"),
    ({"shared_norm": True}, "One batch norm runs twice"),
    ({"norm_after_relu": True}, "right after a convolution"),
    ({"on_shortcut": lambda s: s.detach()}, "gradient"),
    ({"dropout": 0.5}, "training mode"),
]

RIGHT = {
    "ResidualUnit": [unit(add_out), unit(lambda f, x: torch.add(x, f(x))), unit(lambda f, x: x.clone().add_(f(x)))],
    "insert_identity": [
        inserted(),
        by_loading,
        lambda plain: insert_identity_blocks(plain, 1, torch.randn(64, 3, 32, 32)),
    ],
    "StudentBasicBlock": [basic(), TorchvisionBlock],
    "StudentBottleneck": [bottleneck(), ShortcutFirst],
    "make_stage": [stage_by_hand, right_stage],
    "StudentResNet18": [network(), torchvision.models.resnet18, network(make_stage=models.resnet.make_stage)],
}

# (wrong answer, the mistake that the message must name)
WRONG = {
    "ResidualUnit": [
        (unit(lambda f, x: f(x)), "shortcut is missing"),
        (unit(lambda f, x: f(x) - x), "subtracts x"),
        (unit(lambda f, x: x - f(x)), "subtracts F(x)"),
        (unit(lambda f, x: torch.cat([f(x), x], dim=1)), "side by side"),
        (unit(lambda f, x: f(x) * x), "multiplies"),
        (unit(lambda f, x: f(f(x)) + x), "own output"),
        (unit(lambda f, x: f(x) + f(x)), "F(x) twice"),
        (unit(lambda f, x: F.relu(f(x) + x)), "ReLU after the addition"),
        (unit(lambda f, x: F.relu(f(x)) + x), "ReLU on F(x)"),
        (unit(lambda f, x: (f(x) + x) / 2), "mean of F(x) and x"),
        (unit(add_in_place), "in place"),
        (unit(lambda f, x: f(x) + x.detach()), "gradient"),
        (unit(without_gradient), "gradient"),
        (unit(lambda f, x: f(x) + x, keep=copy.deepcopy), "copy of the transform"),
        (InAList, "self.layers keeps layers in a list"),
        (InAFunction, "no parameters"),
        (OwnLayer, "never called"),
        (unit(lambda f, x: print(end="")), "forward returns None"),
        (lambda transform: lambda x: transform(x) + x, "nn.Module"),
    ],
    "insert_identity": [
        (inserted(copied=same), "original network was modified"),
        (inserted(copied=copy.copy), "original network was modified"),
        (rebuilt_of_the_same_layers, "shares layers"),
        (lambda plain: plain, "original network itself"),
        (copy.deepcopy, "not deeper"),
        (inserted(lambda channels: nn.Identity(), stages=("layer1",)), "not deeper"),
        (appended_outside, "not deeper"),
        (inserted(stages=("layer3",)), "layer1 had 2 convolutions, and now has 2"),
        (inserted(n=2), "one new block is enough"),
        (inserted(random_block), "changes its input"),
        (inserted(lambda channels: identity_block(channels, nn.init.ones_)), "changes its input"),
        (inserted(lambda channels: identity_block(channels, nn.init.zeros_)), "returns zeros"),
        (inserted(lambda channels: identity_block(channels, norm=zero_gamma)), "returns zeros"),
        (inserted(lambda channels: identity_block(channels, minus_dirac)), "negative values, which ReLU cuts off"),
        (inserted(lambda channels: identity_block(channels, norm=leave)), "running_var + eps"),
        (inserted(lambda channels: identity_block(channels, norm=scaled)), "scales its input"),
        (inserted(lambda channels: identity_block(channels, norm=shifted)), "shifts its input"),
        (inserted(lambda channels: identity_block(channels, eval=False)), "training mode"),
        (inserted(frozen), "cannot be trained"),
        (inserted(residual_block), "has a shortcut"),
        (pass_in_training_mode, "running statistics were modified"),
        (left_in_training_mode, "put into training mode"),
        (inserted(after=lambda deeper: None), "return"),
        (inserted(after=lambda deeper: deeper.state_dict()), "must return a network"),
    ],
    "StudentBasicBlock": [
        (models.BasicBlock, "the package's own"),
        (lambda *arguments: models.BasicBlock(*arguments), "the package's own BasicBlock"),
        *((basic(**options), mistake) for options, mistake in BLOCK_MISTAKES),
        (basic(projection_kernel=3), "3×3, 3×3, 3×3"),
        (basic(strides=lambda s: [1, s]), "wrong convolution"),
        (basic(strides=lambda s: [s, s]), "More than one convolution"),
        (basic(strides=lambda s: [1, 1]), "stride is not used"),
        (basic(late_shortcut=True), "added to itself"),
        (basic(shared_convolution=True), "One convolution runs twice"),
        (basic(kernels=[3, 1]), "3×3"),
        (lambda i, o, s: "block", "nn.Module"),
    ],
    "StudentBottleneck": [
        *((bottleneck(**options), mistake) for options, mistake in BLOCK_MISTAKES),
        (bottleneck(strides=lambda s: [s, 1, 1]), "F's convolution 1, a 1×1, which skips three of four pixels"),
        (bottleneck(strides=lambda s: [1, 1, s]), "wrong convolution has the stride: F's convolution 3"),
        (bottleneck(strides=lambda s: [1, 1, 1]), "stride is not used"),
        (bottleneck(strides=lambda s: [s, s, 1]), "More than one convolution"),
        (bottleneck(between=same, between2=relu_on), "between the first and the second"),
        (bottleneck(between=relu_on, between2=same), "between the second and the third"),
        (bottleneck(kernels=[3, 3, 3]), "3×3, 3×3, 3×3"),
        (bottleneck(kernels=[1, 1, 1]), "1×1, 1×1, 1×1"),
        (bottleneck(uses_out=False), "channels"),
    ],
    "make_stage": [
        (stage(lambda i, o, n, s: [(i, o, s), *[(o, o, s)] * (n - 1)]), "Every block has the stride"),
        (stage(lambda i, o, n, s: [(i, o, s), *[(i, o, 1)] * (n - 1)]), "second block has in_channels"),
        (stage(lambda i, o, n, s: [(i, o, s)] * n), "All blocks are alike"),
        (stage(lambda i, o, n, s: [(i, o, 1), *[(o, o, 1)] * (n - 1)]), "stride is not used"),
        (stage(lambda i, o, n, s: [(i, o, 2), *[(o, o, 1)] * (n - 1)]), "fixed stride"),
        (stage(lambda i, o, n, s: [(i, o, s), *[(o, o, 1)] * n]), "one block too many"),
        (stage(lambda i, o, n, s: [(i, o, s), *[(o, o, 1)] * (n - 2)]), "one block too few"),
        (stage(lambda i, o, n, s: [(i, o, s)]), "num_blocks is not used"),
        (stage(lambda i, o, n, s: [*[(i, i, 1)] * (n - 1), (i, o, s)]), "last block changes"),
        (stage(lambda i, o, n, s: [(o, o, 1)] * n), "work that case out by hand"),
        (lambda *arguments: list(stage_by_hand(*arguments)), "returns a list"),
        (lambda *arguments: nn.ModuleList(stage_by_hand(*arguments)), "returns a ModuleList"),
        (lambda *arguments: stage_by_hand(*arguments)[0], "return an nn.Sequential"),
        (repeated, "share weights"),
        (with_relus, "does more than run its blocks"),
        (lambda block, *arguments: stage_by_hand(TorchvisionBlock, *arguments), "does not use the given block"),
        (
            lambda block, *arguments: stage_by_hand(lambda **shape: nn.Identity(), *arguments),
            "does not use the given block",
        ),
        (lambda *arguments: None, "return"),
    ],
    "StudentResNet18": [
        (models.resnet18, "the package's own"),
        (network(pool=nn.Identity), "max pool is missing"),
        (network(pool=lambda: nn.MaxPool2d(3, 2)), "max pool's kernel, stride and padding"),
        (network(pool=lambda: nn.MaxPool2d(2, 2)), "max pool has another kernel"),
        (network(pool=lambda: nn.AvgPool2d(3, 2, 1)), "takes the mean"),
        (network(stem=lambda: nn.Conv2d(3, 64, 3, 1, 1, bias=False)), "is 3×3 with stride 1"),
        (
            network(stem=lambda: nn.Conv2d(3, 64, 7, 2, 1, bias=False)),
            "is 7×7 with stride 2, 64 filters and padding (1, 1)",
        ),
        (network(stem_norm=False), "Batch norm is missing after 1"),
        (network(stem_relu=False), "no ReLU after the first convolution"),
        (network(strides=(2, 2, 2, 2)), "first stage halves"),
        (network(strides=(1, 1, 1, 1)), "no stage halves"),
        (network(strides=(1, 2, 2, 1)), "stages' strides are wrong"),
        (network(filters=(64, 64, 128, 256), inputs=256), "twice those of the one before"),
        (network(counts=(3, 4, 6, 3)), "how many do four stages of two blocks have"),
        (network(average=nn.Identity, inputs=512 * 49), "global average pooling is missing"),
        (network(average=nn.Identity, inputs=512 * 4), "global average pooling is missing"),
        (network(average=lambda: nn.AvgPool2d(7)), "over the whole map"),
        (network(average=lambda: nn.AvgPool2d(2)), "not for 96×96"),
        (network(average=lambda: nn.AdaptiveMaxPool2d(1)), "largest value of each last map"),
        (network(classes=1000), "num_classes"),
        (network(extra=(nn.Softmax(1),)), "softmax"),
        (network(extra=(nn.LogSoftmax(1),)), "log_softmax"),
        (network(extra=(nn.ReLU(),)), "after the last layer"),
        (network(hidden=True), "2 fully-connected layers"),
        (network(make_block=basic(join=lambda f, s: f, projects=never)), "No shortcut has a projection"),
        (network(make_block=basic(projects=lambda i, o, s: s != 1 or i == 64)), "5 shortcuts have a projection"),
        (network(make_block=basic(last=same)), "In its blocks: There is no ReLU after"),
        (network(make_block=basic(on_f=relu_on)), "In its blocks: There is another ReLU on F(x)"),
        (network(make_block=basic(bias=True)), "has a bias"),
        (network(make_stage=lambda *arguments: [right_stage(*arguments)]), "TypeError"),
        (ListOfStages, "self.stages keeps layers in a list"),
        (lambda num_classes: models.resnet34(num_classes), "the package's own ResNet"),
        (lambda num_classes: models.resnet18(num_classes, small_images=True), "the package's own ResNet"),
        (lambda num_classes: num_classes, "nn.Module"),
    ],
}


def test_a_network_of_unwritten_blocks_is_unanswered():
    def not_written(*shape):
        raise NotImplementedError

    assert check.StudentResNet18(network(make_block=not_written)).status == "unanswered"


def test_the_default_dtype_is_restored_after_a_check():
    check.insert_identity(lambda plain_model: math.nan)
    assert torch.get_default_dtype() == torch.float32
