"""A small AlexNet for images of 32×32 pixels, quick enough to train hundreds of times on a CPU."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.models.alexnet import initialise


class SmallAlexNet(nn.Module):
    """AlexNet's layers with fewer and smaller filters: 106,000 parameters instead of 57 million.

    It has no batch norm and no dropout. The initial weights are drawn as in `AlexNet`.

    Args:
        num_classes: the number of classes.
        activation: follows each layer but the last, such as F.relu, F.gelu or torch.tanh.
    """

    def __init__(self, num_classes: int, activation: Callable[[torch.Tensor], torch.Tensor] = F.relu):
        super().__init__()
        self.activation = activation
        # The images are small already: 5×5 windows with stride 1 instead of 11×11 with stride 4.
        self.conv1 = nn.Conv2d(3, 16, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=5, padding=2)
        self.conv3 = nn.Conv2d(32, 48, kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(48, 32, kernel_size=3, padding=1)
        self.conv5 = nn.Conv2d(32, 32, kernel_size=3, padding=1)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)
        self.flatten = nn.Flatten()
        self.fc6 = nn.Linear(32 * 3 * 3, 128)
        self.fc7 = nn.Linear(128, 128)
        self.fc8 = nn.Linear(128, num_classes)
        initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of images (N, 3, 32, 32)."""
        if images.shape[1:] != (3, 32, 32):
            raise ValueError(
                f"SmallAlexNet takes images of shape (N, 3, 32, 32), got {tuple(images.shape)}: "
                "make the batches with image_size=32"
            )
        # As in `AlexNet`: pooling after the first, second and fifth convolution.
        x = self.pool(self.activation(self.conv1(images)))  # (N, 16, 15, 15)
        x = self.pool(self.activation(self.conv2(x)))  # (N, 32, 7, 7)
        x = self.activation(self.conv3(x))  # (N, 48, 7, 7)
        x = self.activation(self.conv4(x))  # (N, 32, 7, 7)
        x = self.pool(self.activation(self.conv5(x)))  # (N, 32, 3, 3)
        # Then three fully-connected layers on all maps.
        x = self.flatten(x)  # (N, 288)
        x = self.activation(self.fc6(x))  # (N, 128)
        x = self.activation(self.fc7(x))
        return self.fc8(x)  # (N, num_classes)
