"""The networks of the lesson, as the papers and the slides draw them."""

from cnnlesson.models.alexnet import AlexNet
from cnnlesson.models.identity import insert_identity_blocks
from cnnlesson.models.resnet import BasicBlock, Bottleneck, ResNet, cifar_resnet, resnet18, resnet34, resnet50
from cnnlesson.models.small_alexnet import SmallAlexNet
from cnnlesson.models.two_towers import TwoTowerAlexNet

__all__ = [
    "AlexNet",
    "BasicBlock",
    "Bottleneck",
    "ResNet",
    "SmallAlexNet",
    "TwoTowerAlexNet",
    "cifar_resnet",
    "insert_identity_blocks",
    "resnet18",
    "resnet34",
    "resnet50",
]
