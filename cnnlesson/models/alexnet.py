"""AlexNet with one tower: the network of the lesson's layer table."""

import torch
import torch.nn.functional as F
from torch import nn


class AlexNet(nn.Module):
    """Five convolutions and three fully-connected layers, for colour images of 227×227 pixels.

    The filters (64-192-384-256-256) are those of Krizhevsky, "One weird trick for parallelizing convolutional
    neural networks" (2014), which needs one GPU only; the 2012 network of Krizhevsky, Sutskever and Hinton has two
    towers. With torchvision's weights it gives torchvision's outputs: the layers come in the same order.

    Weights start from a normal distribution of variance 1 / fan_in, biases at 0. What an image does to the signal
    then reaches the last layer: ReLU halves its mean square and max pooling raises it again, so it ends at about a
    fifth of the input's deviation. PyTorch's own default has the variance 1 / (3 fan_in): eight layers leave less
    than a hundredth, the gradient is as small, and the loss rests on its plateau at ln(num_classes), the loss of
    guessing. Twice the variance, 2 / fan_in (He et al., "Delving deep into rectifiers", 2015), is meant for networks
    without pooling: here the signal grows, and the first steps with momentum throw the weights onto that same plateau.

    Args:
        num_classes: how many classes the network tells apart.
        dropout: the probability with which each input of fc6 and fc7 is zeroed in training; the paper has 0.5.
    """

    def __init__(self, num_classes: int, dropout: float):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2)
        self.pool1 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.conv2 = nn.Conv2d(64, 192, kernel_size=5, padding=2)
        self.pool2 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.conv3 = nn.Conv2d(192, 384, kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(384, 256, kernel_size=3, padding=1)
        self.conv5 = nn.Conv2d(256, 256, kernel_size=3, padding=1)
        self.pool5 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.flatten = nn.Flatten()
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)
        self.dropout = nn.Dropout(dropout)
        self._initialise()

    def _initialise(self) -> None:
        for layer in self.children():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")  # a gain of 1: variance 1 / fan_in
                nn.init.zeros_(layer.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of images (N, 3, 227, 227); 223 to 254 pixels also end in a 6×6 map and will do."""
        if images.dim() != 4 or images.shape[1] != 3 or not all(223 <= size <= 254 for size in images.shape[2:]):
            raise ValueError(
                f"AlexNet takes images of shape (N, 3, 227, 227), got {tuple(images.shape)}: "
                "make the batches with image_size=227"
            )
        x = F.relu(self.conv1(images))  # (N, 64, 56, 56)
        x = self.pool1(x)  # (N, 64, 27, 27)
        x = F.relu(self.conv2(x))  # (N, 192, 27, 27)
        x = self.pool2(x)  # (N, 192, 13, 13)
        x = F.relu(self.conv3(x))  # (N, 384, 13, 13)
        x = F.relu(self.conv4(x))  # (N, 256, 13, 13)
        x = F.relu(self.conv5(x))
        x = self.pool5(x)  # (N, 256, 6, 6)
        x = self.flatten(x)  # (N, 9216)
        x = F.relu(self.fc6(self.dropout(x)))  # (N, 4096)
        x = F.relu(self.fc7(self.dropout(x)))
        return self.fc8(x)  # (N, num_classes)
