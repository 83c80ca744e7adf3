"""Data sets by name: image folders, CIFAR-10, EuroSAT, and what a form field or a command line names."""

import os
from difflib import get_close_matches
from pathlib import Path

import torch
from torchvision import datasets

from cnnlesson.data.download import download
from cnnlesson.data.files import Files, decode_train_test
from cnnlesson.data.image_set import ImageSet, TrainTest
from cnnlesson.data.shapes import shapes
from cnnlesson.data.tiny_imagenet import tiny_imagenet

EUROSAT_MIRRORS = (
    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
    "https://madm.dfki.de/files/sentinel/EuroSAT.zip",
)
EUROSAT_SIZE = 94_280_567  # bytes
EUROSAT_MD5 = "c8fa014336c82ac7804f0398fcb19387"


def image_folder(path: str | os.PathLike, size: int | None = None) -> TrainTest:
    """The images in train/<class>/ and test/<class>/ under `path`, at any depth in a folder or a zip archive.

    If test/ has no class folders, as in ImageNette, val/<class>/ takes its place. Classes are in alphabetical order,
    and images in the order of their names. If the sizes differ, each image is resized and cropped to `size`×`size`.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: a class has no images in one part, a file cannot be decoded, or the sizes differ and `size` is None.
    """
    with Files(Path(path)) as files:
        train, test, val = (files.labelled(part) for part in ("train", "test", "val"))
        if val and not set(train.values()) & set(test.values()):
            return decode_train_test(files, {"train": train, "val": val}, {}, size)
        if val:
            print(f"{files.path}: test/ is the test set; val/ is not used.")
        return decode_train_test(files, {"train": train, "test": test}, {}, size)


def eurosat(root: str | os.PathLike) -> TrainTest:
    """EuroSAT (Helber et al., 2019): 27,000 satellite photographs of 64×64 pixels, of ten kinds of land use.

    They are read from eurosat/EuroSAT.zip under `root`, or downloaded to it (94 MB), with the errors of
    `tiny_imagenet`. There is no official split: every fifth image of a class is a test image, 5,400 of them.
    """
    archive = Path(root).expanduser() / "eurosat" / "EuroSAT.zip"  # where torchvision puts it
    if not archive.exists():
        download(EUROSAT_MIRRORS, archive, EUROSAT_SIZE, EUROSAT_MD5)
    with Files(archive) as files:
        train = files.labelled("2750")
        test = {name: train.pop(name) for name in list(train)[::5]}
        return decode_train_test(files, {"train": train, "test": test}, {})


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
    images = [torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in parts]  # (N, 3, 32, 32) each
    labels = [torch.tensor(part.targets) for part in parts]
    return TrainTest(*(ImageSet(*pair, tuple(parts[0].classes)) for pair in zip(images, labels, strict=True)))


def named_images(name: str | os.PathLike, root: str | os.PathLike, seed: int, size: int = 64) -> TrainTest:
    """The data set called `name`.

    That is "shapes" or "easy-shapes", generated with `seed`; "tiny-imagenet", "eurosat" or "cifar10", read from `root`
    or downloaded to it; or the path of a zip archive or folder with TinyImageNet's layout, or for `image_folder`, with
    `size`.

    Raises:
        FileNotFoundError, ConnectionError, OSError, ValueError: as `tiny_imagenet` and `image_folder` do.
    """
    name = os.fspath(name).strip(" '\"")  # a copied path may have quotes
    loaders = {
        "shapes": lambda _: shapes(seed),
        "easy-shapes": lambda _: shapes(seed, easy=True),
        "tiny-imagenet": tiny_imagenet,
        "eurosat": eurosat,
        "cifar10": cifar10,
    }
    if name in loaders:
        return loaders[name](root)
    if "://" in name:
        raise ValueError(f"{name} is an address: download the file, and name its path")
    if not Path(name).expanduser().exists():
        similar = get_close_matches(name.lower(), loaders)
        advice = f"did you mean {similar[0]}?" if similar else "check the spelling, and the folder you are in"
        raise FileNotFoundError(f"{name} does not exist: {advice}")
    with Files(Path(name)) as files:
        is_tiny_imagenet = {"wnids.txt", "words.txt", "val/val_annotations.txt"} & set(files.names)
    return tiny_imagenet(root, archive=name) if is_tiny_imagenet else image_folder(name, size)
