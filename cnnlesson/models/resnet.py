"""Deep residual networks: He et al., "Deep residual learning for image recognition" (2015).

Two families: `resnet18`, `resnet34` and `resnet50` from the paper's table 1, for large images; and `cifar_resnet` from
section 4.2, for the 32×32 pixels of CIFAR-10, with which the paper shows what depth does.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The shortcut of `resnet18` to `resnet50`: x itself, or a 1×1 convolution of x if F changes the shape.

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

    The paper's option A. It has no parameters, so residual and plain networks have the same number of them.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        if out_channels < in_channels:
            raise ValueError(f"zeros can add channels, not remove them: got {in_channels} in, {out_channels} out")
        self.stride = stride
        self.missing = out_channels - in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, :, :: self.stride, :: self.stride]  # (N, in_channels, H/stride, W/stride)
        before = self.missing // 2
        return F.pad(x, (0, 0, 0, 0, before, self.missing - before))  # (N, out_channels, H/stride, W/stride)


class BasicBlock(nn.Module):
    """A residual unit whose F is two 3×3 convolutions: relu(F(x) + x).

    Args:
        in_channels, out_channels: the channels of the block's input and output.
        stride: 2 halves the height and width, 1 keeps them.
        shortcut: builds the path of x around F, called as shortcut(in_channels, out_channels, stride).
    """

    expansion = 1  # output channels per filter of the 3×3 convolutions

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        shortcut: Callable[[int, int, int], nn.Module] = projection,
    ):
        super().__init__()
        # No biases: the batch norm after each convolution would subtract them, and has its own.
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        # F(x) and x can be added only if they have the same shape.
        self.downsample = shortcut(in_channels, out_channels, stride)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """F(x), the part that the block learns: (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""
        x = F.relu(self.bn1(self.conv1(x)))  # (N, out_channels, H/stride, W/stride)
        # No ReLU yet: F(x) may also be negative.
        return self.bn2(self.conv2(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The shortcut passes x, and on the way back the gradient, around F.
        return F.relu(self.residual(x) + self.downsample(x))


class Bottleneck(nn.Module):
    """A residual unit whose F has three layers: 1×1 to fewer channels, 3×3, and 1×1 back; relu(F(x) + x).

    The 3×3 convolution works on a quarter of the output channels, so the block costs about as much as a `BasicBlock`
    with a quarter of its channels. It also has the stride, as in torchvision. In the paper, the first 1×1 convolution
    has the stride, and so skips three of every four pixels.
    """

    expansion = 4

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        if out_channels % self.expansion:
            raise ValueError(f"out_channels of a Bottleneck must be a multiple of {self.expansion}, got {out_channels}")
        width = out_channels // self.expansion
        # 1×1 to fewer channels, so that the expensive 3×3 convolution has less to compute; then 1×1 back.
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = projection(in_channels, out_channels, stride)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """F(x), the part that the block learns: (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""
        x = F.relu(self.bn1(self.conv1(x)))  # (N, out_channels / 4, H, W)
        x = F.relu(self.bn2(self.conv2(x)))  # (N, out_channels / 4, H/stride, W/stride)
        return self.bn3(self.conv3(x))  # (N, out_channels, H/stride, W/stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.residual(x) + self.downsample(x))


class PlainBlock(BasicBlock):
    """The layers of a `BasicBlock` without the shortcut, for comparison: relu(F(x))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__(in_channels, out_channels, stride, shortcut=lambda *shape: nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.residual(x))


class ResNet(nn.Module):
    """Four stages of residual blocks with 64, 128, 256 and 512 filters; all but the first halve the height and width.

    Layers have torchvision's names, so `load_state_dict` accepts torchvision's weights.

    Args:
        block: the residual unit, called as block(in_channels, out_channels, stride).
        blocks_per_stage: the number of blocks in each of the four stages, such as (2, 2, 2, 2).
        num_classes: the number of classes.
        small_images: the paper's first convolution (7×7, stride 2) and pooling shrink an image to a quarter of its
            height and width before the first block. That suits 224 pixels, but 64 become 16, and the last stage sees
            a 2×2 map. True uses a 3×3 convolution with stride 1 and no pooling: the last stage sees 8×8, for 15 times
            the multiply-adds. Use it on a GPU; on a CPU, keep False. Compare both with `cnnlesson.anatomy.layer_table`.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks_per_stage: tuple[int, ...],
        num_classes: int,
        small_images: bool,
    ):
        super().__init__()
        # The stem: fewer pixels for all later layers, unless the images are small already.
        if small_images:
            self.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(64)
        # Twice the filters wherever the map's size is halved: every block takes about the same compute.
        channels1, channels2, channels3, channels4 = (filters * block.expansion for filters in (64, 128, 256, 512))
        blocks1, blocks2, blocks3, blocks4 = blocks_per_stage
        self.layer1 = make_stage(block, 64, channels1, blocks1, stride=1)
        self.layer2 = make_stage(block, channels1, channels2, blocks2, stride=2)
        self.layer3 = make_stage(block, channels2, channels3, blocks3, stride=2)
        self.layer4 = make_stage(block, channels3, channels4, blocks4, stride=2)
        # One mean per map instead of AlexNet's large fully-connected layers; any image size fits.
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels4, num_classes)
        initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of images (N, 3, H, W); the shapes below are those of resnet18 for 224×224."""
        check_colour_images(images)
        # The stem shrinks the image before the first block.
        x = F.relu(self.bn1(self.conv1(images)))  # (N, 64, 112, 112)
        x = self.maxpool(x)  # (N, 64, 56, 56)
        # From stage to stage, fewer positions and more features.
        x = self.layer1(x)
        x = self.layer2(x)  # (N, 128, 28, 28)
        x = self.layer3(x)  # (N, 256, 14, 14)
        x = self.layer4(x)  # (N, 512, 7, 7)
        # The mean over all positions: what matters is whether a feature is there, not where.
        x = self.avgpool(x)  # (N, 512, 1, 1)
        x = self.flatten(x)  # (N, 512)
        return self.fc(x)  # (N, num_classes)


class CifarResNet(nn.Module):
    """Three stages of blocks with 16, 32 and 64 filters, for images of 32×32 pixels: see `cifar_resnet`."""

    def __init__(self, block: Callable[[int, int, int], nn.Module], blocks_per_stage: int, num_classes: int):
        super().__init__()
        # The images are small already: a 3×3 convolution and no pooling before the first block.
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
        # As in `ResNet`, with three stages: fewer positions, more features, then the mean over all positions.
        x = self.layer1(x)
        x = self.layer2(x)  # (N, 32, 16, 16)
        x = self.layer3(x)  # (N, 64, 8, 8)
        x = self.avgpool(x)  # (N, 64, 1, 1)
        x = self.flatten(x)  # (N, 64)
        return self.fc(x)  # (N, num_classes)


def make_stage(
    block: Callable[[int, int, int], nn.Module], in_channels: int, out_channels: int, num_blocks: int, stride: int
) -> nn.Sequential:
    """`num_blocks` blocks in a row; the first changes the channels and the size, the others keep both."""
    blocks = [block(in_channels, out_channels, stride)]
    for _ in range(num_blocks - 1):
        blocks.append(block(out_channels, out_channels, 1))
    return nn.Sequential(*blocks)


def initialise(model: nn.Module) -> None:
    """He initialisation of the convolutions, with fan_out ("Delving deep into rectifiers", 2015)."""
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
    """The 50-layer network of the paper's table 1, with three-layer blocks; `small_images` as in `ResNet`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, small_images)


def cifar_resnet(depth: int, num_classes: int, residual: bool = True) -> CifarResNet:
    """The paper's network for CIFAR-10, `depth` layers deep: 20, 32, 44, 56 and 110 in the paper.

    It has a first convolution, three stages of n two-layer blocks, and a fully-connected layer: 6n + 2 layers.

    Args:
        depth: 6n + 2, for an integer n of at least 1.
        num_classes: the number of classes.
        residual: False returns the plain network: the same layers without the shortcuts.
    """
    block = partial(BasicBlock, shortcut=ZeroPadding) if residual else PlainBlock
    return CifarResNet(block, cifar_blocks_per_stage(depth), num_classes)


def cifar_blocks_per_stage(depth: int) -> int:
    """The n of a network of 6n + 2 layers."""
    blocks_per_stage, rest = divmod(depth - 2, 6)
    if rest or blocks_per_stage < 1:
        raise ValueError(f"depth must be 6n + 2, such as 8, 14, 20, 32, 44, 56 or 110, got {depth}")
    return blocks_per_stage
