"""Deep residual networks, after He et al., "Deep residual learning for image recognition" (2015)."""

import torch
import torch.nn.functional as F
from torch import nn


class BasicBlock(nn.Module):
    """A residual unit whose F is two 3×3 convolutions: relu(F(x) + x).

    Where F halves the image (stride 2) or changes the number of channels, x goes through a 1×1 convolution to
    match: the paper's projection shortcut, option B.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        if stride == 1 and in_channels == out_channels:
            self.downsample = nn.Identity()
        else:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """F(x), which is what the block learns: (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.residual(x) + self.downsample(x))


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
        blocks1, blocks2, blocks3, blocks4 = blocks_per_stage
        self.layer1 = make_stage(block, 64, 64, blocks1, stride=1)
        self.layer2 = make_stage(block, 64, 128, blocks2, stride=2)
        self.layer3 = make_stage(block, 128, 256, blocks3, stride=2)
        self.layer4 = make_stage(block, 256, 512, blocks4, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(512, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of images (N, 3, H, W); the shapes beside the lines are for 224×224."""
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"ResNet takes colour images of shape (N, 3, H, W), got {tuple(images.shape)}")
        x = F.relu(self.bn1(self.conv1(images)))  # (N, 64, 112, 112)
        x = self.maxpool(x)  # (N, 64, 56, 56)
        x = self.layer1(x)
        x = self.layer2(x)  # (N, 128, 28, 28)
        x = self.layer3(x)  # (N, 256, 14, 14)
        x = self.layer4(x)  # (N, 512, 7, 7)
        x = self.avgpool(x)  # (N, 512, 1, 1)
        x = self.flatten(x)  # (N, 512)
        return self.fc(x)  # (N, num_classes)


def make_stage(
    block: type[nn.Module], in_channels: int, out_channels: int, num_blocks: int, stride: int
) -> nn.Sequential:
    """`num_blocks` blocks in a row; the first one changes the channels and the size, the others keep both."""
    blocks = [block(in_channels, out_channels, stride)]
    for _ in range(num_blocks - 1):
        blocks.append(block(out_channels, out_channels, stride=1))
    return nn.Sequential(*blocks)


def resnet18(num_classes: int, small_images: bool = False) -> ResNet:
    """The 18-layer network of the paper's table 1: 17 convolutions and a fully-connected layer.

    `small_images=True` is for images of 32 to 64 pixels: see `ResNet`.
    """
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, small_images)
