"""Data sets by name: image folders, CIFAR-10, and what a form field or a command line names."""

import os
from pathlib import Path

import torch
from torchvision import datasets

from cnnlesson.data.files import Files, decode_train_test
from cnnlesson.data.image_set import ImageSet, TrainTest
from cnnlesson.data.shapes import shapes
from cnnlesson.data.tiny_imagenet import tiny_imagenet

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")


def image_folder(path: str | os.PathLike) -> TrainTest:
    """The images in train/<class>/ and test/<class>/ under `path`, a folder or a zip archive.

    Classes are the names of the folders, in alphabetical order; images are in the order of their names. All images
    must have the same size; grayscale becomes RGB.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: a class has no images in one part, or a file cannot be decoded; the message names it.
    """
    with Files(Path(path)) as files:
        names = [name for name in files.names if name.lower().endswith(EXTENSIONS) and name.count("/") >= 2]
        train = [(name, name.split("/")[1]) for name in names if name.startswith("train/")]
        test = [(name, name.split("/")[1]) for name in names if name.startswith("test/")]
        classes = sorted({class_name for _, class_name in train + test})
        for part, images in (("train", train), ("test", test)):
            missing = sorted(set(classes) - {class_name for _, class_name in images})
            if missing or not images:
                where = f"{part}/{missing[0]}/" if missing else f"{part}/<class>/"
                raise ValueError(f"{files.path} has no images in {where}: each class needs some in train/ and in test/")
        return decode_train_test(files, train, test, {name: name for name in classes})


def cifar10(root: str | os.PathLike) -> TrainTest:
    """The official 50,000 training and 10,000 test images, read from `root` or downloaded by torchvision (170 MB).

    Raises:
        OSError: the download failed.
    """
    try:
        parts = [datasets.CIFAR10(root, train=is_train, download=True) for is_train in (True, False)]
    except (OSError, RuntimeError) as error:  # torchvision reports wrong bytes as RuntimeError
        raise OSError(
            f"CIFAR-10 could not be downloaded ({error}): run this again, or download {datasets.CIFAR10.url} "
            f"in a browser and save it in {root}"
        ) from error
    return TrainTest(*(_image_set(part) for part in parts))


def _image_set(part: datasets.CIFAR10) -> ImageSet:
    images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()  # (N, 3, 32, 32)
    return ImageSet(images, torch.tensor(part.targets), tuple(part.classes))


def named_images(name: str, root: str | os.PathLike, seed: int) -> TrainTest:
    """The data set called `name`.

    That is "shapes", generated with `seed`; "tiny-imagenet", read from `root` or downloaded to it; or the path of a zip
    archive or folder with TinyImageNet's layout, or with train/<class>/ and test/<class>/.

    Raises:
        FileNotFoundError, ConnectionError, OSError, ValueError: as `tiny_imagenet` and `image_folder` do.
    """
    if name == "shapes":
        return shapes(seed)
    if name == "tiny-imagenet":
        return tiny_imagenet(root)
    with Files(Path(name)) as files:
        is_tiny_imagenet = {"wnids.txt", "words.txt", "val/val_annotations.txt"} & set(files.names)
    return tiny_imagenet(root, archive=name) if is_tiny_imagenet else image_folder(name)
