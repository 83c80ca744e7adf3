"""CIFAR-10: ten classes, 6,000 images each, 32×32 pixels (Krizhevsky, 2009)."""

import os

import torch
from torchvision import datasets

from cnnlesson.data.image_set import ImageSet, TrainTest


def cifar10(root: str | os.PathLike) -> TrainTest:
    """The official 50,000 training and 10,000 test images, found under `root` or downloaded by torchvision (170 MB).

    Raises:
        OSError: the download failed.
    """
    try:
        parts = [datasets.CIFAR10(root, train=is_train, download=True) for is_train in (True, False)]
    except (OSError, RuntimeError) as error:  # torchvision reports wrong bytes as RuntimeError
        raise OSError(
            f"CIFAR-10 could not be downloaded ({error}): run this again, or fetch {datasets.CIFAR10.url} "
            f"with a browser and save it in {root}"
        ) from error
    return TrainTest(*(_image_set(part) for part in parts))


def _image_set(part: datasets.CIFAR10) -> ImageSet:
    images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()  # (N, 3, 32, 32)
    return ImageSet(images, torch.tensor(part.targets), tuple(part.classes))
