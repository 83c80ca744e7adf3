"""Images in folders that are named after their classes."""

import os
from pathlib import Path

import torch

from cnnlesson.data.decode import decode
from cnnlesson.data.files import Files
from cnnlesson.data.image_set import ImageSet, TrainTest

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")


def image_folder(path: str | os.PathLike) -> TrainTest:
    """The images in train/<class>/ and test/<class>/ under `path`, a folder or a zip archive.

    Classes are the names of the folders, in alphabetical order; images are in the order of their names. All must have
    one size; grayscale becomes RGB.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: a part or a class has no images, or a file cannot be decoded; names it.
    """
    with Files(Path(path)) as files:
        names = [name for name in files.names if name.lower().endswith(EXTENSIONS) and name.count("/") >= 2]
        train_names = [name for name in names if name.startswith("train/")]
        test_names = [name for name in names if name.startswith("test/")]
        classes = sorted({class_of(name) for name in train_names + test_names})
        for part, part_names in (("train", train_names), ("test", test_names)):
            missing = sorted(set(classes) - {class_of(name) for name in part_names})
            if missing or not part_names:
                where = f"{part}/{missing[0]}/" if missing else f"{part}/<class>/"
                raise ValueError(f"{files.path} has no images in {where}: each class needs some in train/ and in test/")
        images = decode(files, train_names + test_names)
    labels = torch.tensor([classes.index(class_of(name)) for name in train_names + test_names])
    num_train = len(train_names)
    return TrainTest(
        train=ImageSet(images[:num_train], labels[:num_train], tuple(classes)),
        test=ImageSet(images[num_train:], labels[num_train:], tuple(classes)),
    )


def class_of(name: str) -> str:
    return name.split("/")[1]
