"""AlexNet as published: the two towers in figure 2 of Krizhevsky, Sutskever and Hinton (2012)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.runtime.device import find_device


class TwoTowerAlexNet(nn.Module):
    """The network that won the ImageNet challenge of 2012, for colour images of 227×227 pixels.

    The paper trained it on two GPUs with 3 GB each, with half of the filters on each GPU. The halves, or towers, see
    each other's feature maps only in conv3 and in the fully-connected layers. Here a tower is one group of the grouped
    convolutions; `on_two_devices` puts each tower on a device of its own.

    From the paper: filters, strides, overlapping pooling and local response normalisation (sections 3.3 to 3.5),
    dropout of 0.5 before fc6 and fc7 (4.2), and the initial weights (5): normal with a standard deviation of 0.01,
    and biases of 1 in conv2, conv4, conv5, fc6 and fc7, so that ReLU starts with positive inputs. The paper states 224
    pixels, but its 11×11 convolution with stride 4 fits 227: (227 - 11) / 4 + 1 = 55.

    Args:
        num_classes: the number of classes.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, kernel_size=11, stride=4)
        self.pool1 = nn.MaxPool2d(kernel_size=3, stride=2)
        # Two groups: each half of the filters sees only the maps of its own tower.
        self.conv2 = nn.Conv2d(96, 256, kernel_size=5, padding=2, groups=2)
        self.pool2 = nn.MaxPool2d(kernel_size=3, stride=2)
        # The only convolution in which both towers see all maps.
        self.conv3 = nn.Conv2d(256, 384, kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, kernel_size=3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, kernel_size=3, padding=1, groups=2)
        self.pool5 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.flatten = nn.Flatten()
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)
        self.dropout = nn.Dropout(0.5)

        # Biases of 1 where the paper has them: ReLU then passes a gradient from the first step.
        for layer in self.children():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
        for layer in (self.conv2, self.conv4, self.conv5, self.fc6, self.fc7):
            nn.init.ones_(layer.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of images (N, 3, 227, 227)."""
        check_images(images)
        # A strong response dampens its neighbours in nearby channels, within its tower.
        x = normalise_towers(F.relu(self.conv1(images)))  # (N, 96, 55, 55)
        # Windows of 3 with stride 2 overlap, which the paper found to overfit slightly less.
        x = self.pool1(x)  # (N, 96, 27, 27)
        x = normalise_towers(F.relu(self.conv2(x)))  # (N, 256, 27, 27)
        x = self.pool2(x)  # (N, 256, 13, 13)
        # The towers exchange their maps here, and then not until fc6.
        x = F.relu(self.conv3(x))  # (N, 384, 13, 13)
        x = F.relu(self.conv4(x))
        x = F.relu(self.conv5(x))  # (N, 256, 13, 13)
        x = self.pool5(x)  # (N, 256, 6, 6)
        # Every unit of a fully-connected layer sees both towers.
        x = self.flatten(x)  # (N, 9216)
        x = F.relu(self.fc6(self.dropout(x)))  # (N, 4096)
        x = F.relu(self.fc7(self.dropout(x)))
        return self.fc8(x)  # (N, num_classes)

    def on_two_devices(self, devices: Sequence[torch.device | str]) -> "TowersOnTwoDevices":
        """A copy of this network with one tower on each of two devices; the logits are on the first device."""
        return TowersOnTwoDevices(self, devices)


class TowersOnTwoDevices(nn.Module):
    """The two towers, each on its own device, as in the figure: see `TwoTowerAlexNet.on_two_devices`."""

    def __init__(self, model: TwoTowerAlexNet, devices: Sequence[torch.device | str]):
        super().__init__()
        self.devices = [find_device(device) for device in devices]
        self.towers = nn.ModuleList(tower(model, half).to(device) for half, device in enumerate(self.devices))
        self.train(model.training)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) on the first device, of images (N, 3, 227, 227) on any device."""
        check_images(images)
        xs = [images.to(device) for device in self.devices]
        for left, right in zip(*self.towers, strict=True):
            # Each tower computes its half by itself.
            xs = [left(xs[0]), right(xs[1])]
            # Then the figure's lines cross: each device gets both halves, which the next section needs.
            xs = [torch.cat([x.to(device) for x in xs], dim=1) for device in self.devices]
        return xs[0]


def tower(model: TwoTowerAlexNet, half: int) -> nn.ModuleList:
    """Half of the filters of every layer (`half` is 0 or 1), in the sections between which the towers exchange maps."""
    layers = [layer for layer in model.children() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    conv1, conv2, conv3, conv4, conv5, fc6, fc7, fc8 = (half_of(layer, half) for layer in layers)
    relu, pool, dropout = nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2), nn.Dropout(0.5)
    return nn.ModuleList(
        [
            nn.Sequential(conv1, relu, normalise, pool, conv2, relu, normalise, pool),  # (N, 128, 13, 13)
            nn.Sequential(conv3, relu, conv4, relu, conv5, relu, pool, nn.Flatten()),  # (N, 4608)
            nn.Sequential(dropout, fc6, relu),  # (N, 2048)
            nn.Sequential(dropout, fc7, relu),  # (N, 2048)
            fc8,  # (N, num_classes / 2)
        ]
    )


def half_of(layer: nn.Conv2d | nn.Linear, half: int) -> nn.Conv2d | nn.Linear:
    """A layer with half of the filters or units, and their weights; half of a grouped convolution is one group."""
    weight, bias = layer.weight.chunk(2)[half], layer.bias.chunk(2)[half]
    filters, channels = weight.shape[:2]
    if isinstance(layer, nn.Conv2d):
        window = layer.kernel_size, layer.stride, layer.padding
        # torch's stubs do not say that these are pairs.
        part: nn.Conv2d | nn.Linear = nn.Conv2d(channels, filters, *window)  # type: ignore[arg-type]
    else:
        part = nn.Linear(channels, filters)
    part.load_state_dict({"weight": weight, "bias": bias})
    return part


# The paper's local response normalisation over five neighbouring channels. torch divides alpha by the number of
# neighbours and the paper does not, so the paper's 0.0001 is 0.0005 here.
normalise = nn.LocalResponseNorm(size=5, alpha=5 * 1e-4, beta=0.75, k=2)


def normalise_towers(x: torch.Tensor) -> torch.Tensor:
    """`normalise`, separately for each half of the channels: the other tower's channels are on the other GPU."""
    return torch.cat([normalise(half) for half in x.chunk(2, dim=1)], dim=1)


def check_images(images: torch.Tensor) -> None:
    if images.dim() != 4 or images.shape[1:] != (3, 227, 227):
        raise ValueError(
            f"TwoTowerAlexNet takes images of shape (N, 3, 227, 227), got {tuple(images.shape)}: "
            "make the batches with image_size=227"
        )
