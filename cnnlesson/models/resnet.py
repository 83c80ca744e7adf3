"""Deep residual networks, after He et al., "Deep residual learning for image recognition" (2015).

Two families: `resnet18`, `resnet34` and `resnet50` of the paper's table 1, for large images, and `cifar_resnet` of its
section 4.2, for CIFAR-10's 32×32 pixels, with which the paper shows what depth does.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The shortcut of `resnet18` and its kin: x itself, or a 1×1 convolution of it where F changes its shape.

    The paper's option B.
    """
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class ZeroPadding(nn.Module):
    """The shortcut of `cifar_resnet`: every `stride`-th pixel of x, and zeros for the channels that x lacks.

    The paper's option A. It has no parameters, so a residual network has just those of the plain one.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        if out_channels < in_channels:
            raise ValueError(f"zeros can add channels, not take them away: got {in_channels} in, {out_channels} out")
        self.stride = stride
        self.missing = out_channels - in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, :, :: self.stride, :: self.stride]  # (N, in_channels, H/stride, W/stride)
        before = self.missing // 2
        return F.pad(x, (0, 0, 0, 0, before, self.missing - before))  # (N, out_channels, H/stride, W/stride)


class BasicBlock(nn.Module):
    """A residual unit whose F is two 3×3 convolutions: relu(F(x) + x).

    Args:
        in_channels, out_channels: of the block's input and output.
        stride: 2 halves the image's height and width, 1 keeps them.
        shortcut: makes what carries x past F, called as shortcut(in_channels, out_channels, stride).
    """

    expansion = 1  # output channels for each filter of the 3×3 convolutions

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        shortcut: Callable[[int, int, int], nn.Module] = projection,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = shortcut(in_channels, out_channels, stride)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """F(x), which is what the block learns: (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.residual(x) + self.downsample(x))


class Bottleneck(nn.Module):
    """A residual unit whose F has three layers: 1×1 to fewer channels, 3×3 there, 1×1 back; relu(F(x) + x).

    The 3×3 convolution works on a quarter of the output's channels, so the block costs about as much as a
    `BasicBlock` with a quarter of its channels. It also has the stride, as in torchvision; the paper's first
    1×1 convolution had it, and so never looked at three pixels of four.
    """

    expansion = 4

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        if out_channels % self.expansion:
            raise ValueError(f"out_channels of a Bottleneck must be a multiple of {self.expansion}, got {out_channels}")
        width = out_channels // self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = projection(in_channels, out_channels, stride)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """F(x), which is what the block learns: (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""
        x = F.relu(self.bn1(self.conv1(x)))  # (N, out_channels / 4, H, W)
        x = F.relu(self.bn2(self.conv2(x)))  # (N, out_channels / 4, H/stride, W/stride)
        return self.bn3(self.conv3(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.residual(x) + self.downsample(x))


class PlainBlock(BasicBlock):
    """The layers of a `BasicBlock` without the shortcut, for comparison: relu(F(x))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__(in_channels, out_channels, stride, shortcut=lambda *shape: nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.residual(x))


class ResNet(nn.Module):
    """Four stages of residual blocks with 64, 128, 256 and 512 filters, each stage half the size of the one before.

    Layers carry torchvision's names, so `load_state_dict` takes torchvision's weights.

    Args:
        block: the residual unit, called as block(in_channels, out_channels, stride).
        blocks_per_stage: how many blocks each of the four stages has, such as (2, 2, 2, 2).
        num_classes: how many classes the network tells apart.
        small_images: the paper's first convolution (7×7, stride 2) and pool shrink an image to a quarter before
            the first block. That suits 224 pixels. Of 64 it leaves 16, and the last stage sees a 2×2 map. True puts a
            3×3 convolution with stride 1 there and no pool, so a 64-pixel image keeps its size until the second
            stage: the last stage sees 8×8, at 15 times the multiply-adds. Worth it on a GPU; on a processor keep
            False, and look at both with `cnnlesson.anatomy.layer_table`.
    """

    def __init__(self, block: type[nn.Module], blocks_per_stage: tuple[int, ...], num_classes: int, small_images: bool):
        super().__init__()
        if small_images:
            self.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
            self.maxpool = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(64)
        channels1, channels2, channels3, channels4 = (filters * block.expansion for filters in (64, 128, 256, 512))
        blocks1, blocks2, blocks3, blocks4 = blocks_per_stage
        self.layer1 = make_stage(block, 64, channels1, blocks1, stride=1)
        self.layer2 = make_stage(block, channels1, channels2, blocks2, stride=2)
        self.layer3 = make_stage(block, channels2, channels3, blocks3, stride=2)
        self.layer4 = make_stage(block, channels3, channels4, blocks4, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels4, num_classes)
        initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of images (N, 3, H, W); the shapes are resnet18's for 224×224."""
        check_colour_images(images)
        x = F.relu(self.bn1(self.conv1(images)))  # (N, 64, 112, 112)
        x = self.maxpool(x)  # (N, 64, 56, 56)
        x = self.layer1(x)
        x = self.layer2(x)  # (N, 128, 28, 28)
        x = self.layer3(x)  # (N, 256, 14, 14)
        x = self.layer4(x)  # (N, 512, 7, 7)
        x = self.avgpool(x)  # (N, 512, 1, 1)
        x = self.flatten(x)  # (N, 512)
        return self.fc(x)  # (N, num_classes)


class CifarResNet(nn.Module):
    """Three stages of blocks with 16, 32 and 64 filters, for images of 32×32 pixels: see `cifar_resnet`."""

    def __init__(self, block: Callable[[int, int, int], nn.Module], blocks_per_stage: int, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = make_stage(block, 16, 16, blocks_per_stage, stride=1)
        self.layer2 = make_stage(block, 16, 32, blocks_per_stage, stride=2)
        self.layer3 = make_stage(block, 32, 64, blocks_per_stage, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(64, num_classes)
        initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of images (N, 3, 32, 32)."""
        check_colour_images(images)
        x = F.relu(self.bn1(self.conv1(images)))  # (N, 16, 32, 32)
        x = self.layer1(x)
        x = self.layer2(x)  # (N, 32, 16, 16)
        x = self.layer3(x)  # (N, 64, 8, 8)
        x = self.avgpool(x)  # (N, 64, 1, 1)
        x = self.flatten(x)  # (N, 64)
        return self.fc(x)  # (N, num_classes)


def make_stage(
    block: Callable[[int, int, int], nn.Module], in_channels: int, out_channels: int, num_blocks: int, stride: int
) -> nn.Sequential:
    """`num_blocks` blocks in a row; the first one changes the channels and the size, the others keep both."""
    blocks = [block(in_channels, out_channels, stride)]
    for _ in range(num_blocks - 1):
        blocks.append(block(out_channels, out_channels, 1))
    return nn.Sequential(*blocks)


def initialise(model: nn.Module) -> None:
    """He et al.'s initialisation of convolutions, "Delving deep into rectifiers" (2015), by their outputs."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def check_colour_images(images: torch.Tensor) -> None:
    if images.dim() != 4 or images.shape[1] != 3:
        raise ValueError(f"ResNet takes colour images of shape (N, 3, H, W), got {tuple(images.shape)}")


def resnet18(num_classes: int, small_images: bool = False) -> ResNet:
    """The 18-layer network of the paper's table 1: 17 convolutions and a fully-connected layer.

    `small_images=True` is for images of 32 to 64 pixels: see `ResNet`.
    """
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, small_images)


def resnet34(num_classes: int, small_images: bool = False) -> ResNet:
    """The 34-layer network of the paper's table 1; `small_images` as in `ResNet`."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, small_images)


def resnet50(num_classes: int, small_images: bool = False) -> ResNet:
    """The 50-layer network of the paper's table 1, of three-layer blocks; `small_images` as in `ResNet`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, small_images)


def cifar_resnet(depth: int, num_classes: int, residual: bool = True) -> CifarResNet:
    """The paper's network for CIFAR-10, `depth` layers deep: 20, 32, 44, 56 and 110 in the paper.

    A first convolution, three stages of n two-layer blocks, and a fully-connected layer: 6n + 2 layers.

    Args:
        depth: 6n + 2 for a whole n of at least 1.
        num_classes: how many classes the network tells apart.
        residual: False gives the plain network, with the same layers and without the shortcuts.
    """
    block = partial(BasicBlock, shortcut=ZeroPadding) if residual else PlainBlock
    return CifarResNet(block, cifar_blocks_per_stage(depth), num_classes)


def cifar_blocks_per_stage(depth: int) -> int:
    """The n of a network of 6n + 2 layers."""
    blocks_per_stage, rest = divmod(depth - 2, 6)
    if rest or blocks_per_stage < 1:
        raise ValueError(f"depth must be 6n + 2, such as 8, 14, 20, 32, 44, 56 or 110, got {depth}")
    return blocks_per_stage
