"""What a trained network says of each image."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import nn

from cnnlesson.training import mixed_precision


class Predictions(NamedTuple):
    """The network's answers, in the order of the batches, in the processor's memory."""

    labels: torch.Tensor  # int64 (N,): what the images are
    probabilities: torch.Tensor  # float32 (N, num_classes): what the network gives each class, 1 in all


@torch.no_grad()
def predict(model: nn.Module, batches: Iterable) -> Predictions:
    """The model's probabilities for each image of `batches`, with dropout off and batch norm's running statistics.

    Args:
        model: on the device of the batches; its output is logits (N, num_classes).
        batches: gives pairs of images (N, 3, H, W) and labels (N,). `Batches` without a seed keeps the set's order.
    """
    model.eval()
    labels, probabilities = [], []
    for images, labels_of_batch in batches:
        with mixed_precision(images.device):
            logits = model(images)  # (N, num_classes)
        labels.append(labels_of_batch)
        probabilities.append(logits.float().softmax(dim=1))
    if not labels:
        raise ValueError("there was no batch to go through: give a set with at least one image")
    return Predictions(torch.cat(labels).cpu(), torch.cat(probabilities).cpu())
