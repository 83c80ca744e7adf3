"""The networks of the lesson, as the papers and the slides draw them. They import torch and nothing else."""

from cnnlesson.models.alexnet import AlexNet
from cnnlesson.models.resnet import BasicBlock, ResNet, resnet18

__all__ = ["AlexNet", "BasicBlock", "ResNet", "resnet18"]
