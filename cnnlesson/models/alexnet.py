"""AlexNet with one tower: the network in the lesson's layer table."""

import torch
import torch.nn.functional as F
from torch import nn


class AlexNet(nn.Module):
    """Five convolutions and three fully-connected layers, for colour images of 227×227 pixels.

    The filters (64-192-384-256-256) are those of Krizhevsky, "One weird trick for parallelizing convolutional
    neural networks" (2014), which needs only one GPU; the 2012 network of Krizhevsky, Sutskever and Hinton has two
    towers. The layers are in torchvision's order; with torchvision's weights the outputs match torchvision's.

    The initial weights are drawn from a normal distribution with variance 1 / fan_in; biases are 0. ReLU halves the
    mean square of the signal and max pooling raises it again, so the logits of the untrained network have about a fifth
    of the input's standard deviation. With PyTorch's default, a variance of 1 / (3 fan_in), eight layers leave less
    than a hundredth. The gradient is equally small, so the loss stays on a plateau at chance level, ln(num_classes). A
    variance of 2 / fan_in (He et al., "Delving deep into rectifiers", 2015) is meant for networks without pooling. Here
    the signal would grow, and the first steps with momentum would move the weights onto the same plateau.

    Args:
        num_classes: the number of classes.
        dropout: the probability that an input of fc6 or fc7 is set to zero during training; 0.5 in the paper.
    """

    def __init__(self, num_classes: int, dropout: float):
        super().__init__()
        # Large windows and strides first: the image shrinks quickly, which saves compute.
        self.conv1 = nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2)
        self.pool1 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.conv2 = nn.Conv2d(64, 192, kernel_size=5, padding=2)
        self.pool2 = nn.MaxPool2d(kernel_size=3, stride=2)
        # Then 3×3 windows, padded by 1 so that the maps keep their size.
        self.conv3 = nn.Conv2d(192, 384, kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(384, 256, kernel_size=3, padding=1)
        self.conv5 = nn.Conv2d(256, 256, kernel_size=3, padding=1)
        self.pool5 = nn.MaxPool2d(kernel_size=3, stride=2)
        # The classifier sees all 256 maps of 6×6 as one vector. Most parameters are here, in fc6.
        self.flatten = nn.Flatten()
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)
        self.dropout = nn.Dropout(dropout)

        # Weights that neither shrink the signal to nothing nor blow it up: see above.
        initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of images (N, 3, 227, 227); 223 to 254 pixels work too, and also end in 6×6."""
        if images.dim() != 4 or images.shape[1] != 3 or not all(223 <= size <= 254 for size in images.shape[2:]):
            raise ValueError(
                f"AlexNet takes images of shape (N, 3, 227, 227), got {tuple(images.shape)}: "
                "make the batches with image_size=227"
            )
        # ReLU after each layer: without it, all layers together would be a single linear function.
        x = F.relu(self.conv1(images))  # (N, 64, 56, 56)
        # Pooling keeps the strongest response of each neighbourhood, in maps of half the size.
        x = self.pool1(x)  # (N, 64, 27, 27)
        x = F.relu(self.conv2(x))  # (N, 192, 27, 27)
        x = self.pool2(x)  # (N, 192, 13, 13)
        # Three convolutions without pooling: deeper features at the same resolution.
        x = F.relu(self.conv3(x))  # (N, 384, 13, 13)
        x = F.relu(self.conv4(x))  # (N, 256, 13, 13)
        x = F.relu(self.conv5(x))
        x = self.pool5(x)  # (N, 256, 6, 6)
        # From maps to a vector, since each unit of fc6 sees all of them.
        x = self.flatten(x)  # (N, 9216)
        # Dropout only where most of the parameters are, against overfitting.
        x = F.relu(self.fc6(self.dropout(x)))  # (N, 4096)
        x = F.relu(self.fc7(self.dropout(x)))
        # No ReLU and no softmax: the loss takes logits.
        return self.fc8(x)  # (N, num_classes)


def initialise(model: nn.Module) -> None:
    """Weights from a normal distribution with variance 1 / fan_in, biases at 0, in each layer of `model`."""
    for layer in model.children():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")  # a gain of 1: variance 1 / fan_in
            nn.init.zeros_(layer.bias)
