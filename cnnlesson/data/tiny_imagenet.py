"""TinyImageNet: 200 classes of ImageNet, 500 training and 50 validation images each, 64×64 pixels."""

import os
from pathlib import Path

import torch

from cnnlesson.data.download import download
from cnnlesson.data.files import Files, decode, load_cache, save_cache
from cnnlesson.data.image_set import ImageSet, TrainTest

# Stanford's course CS231n made the data set and publishes it; ImageNet's own site has the same file.
MIRRORS = (
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "https://image-net.org/data/tiny-imagenet-200.zip",
)
SIZE = 248_100_043  # bytes
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def tiny_imagenet(root: str | os.PathLike, archive: str | os.PathLike | None = None) -> TrainTest:
    """TinyImageNet's images, from what lies under `root` or else from the network.

    `.train` is the official training split (100,000 images), `.test` the official validation split (10,000), whose
    labels are published. The official test images have no labels and are left alone.

    The first call looks under `root` for tiny-imagenet-200.zip or the unpacked folder tiny-imagenet-200, downloads
    the archive where neither is there, decodes every image once, and writes a cache beside it. Later calls only map
    the cache into memory.

    Args:
        root: a folder for the download and the cache; made where it does not exist.
        archive: another zip or unpacked folder with the same layout, of any number of classes.

    Raises:
        ConnectionError, OSError: the download failed, or the disk is full; says what to do.
        ValueError: the archive is damaged or has another layout; names the file.
    """
    root = Path(root)
    source = _find_source(root) if archive is None else Path(archive)
    name = "tiny-imagenet-200" if source is None else source.name.removesuffix(".zip")
    cache = root / f"{name}.pt"
    data = load_cache(cache, source)
    if data is None:
        if source is None:
            source = download(MIRRORS, root / "tiny-imagenet-200.zip", SIZE, MD5)
        with Files(source) as files:
            data = _read(files)
        data = save_cache(data, cache, source)
    return data


def _find_source(root: Path) -> Path | None:
    for candidate in (root / "tiny-imagenet-200.zip", root / "tiny-imagenet-200"):
        if candidate.exists():
            return candidate
    return None


def _read(files: Files) -> TrainTest:
    # Classes are numbered in the order of their WordNet identifiers, as torchvision's ImageFolder numbers folders.
    wordnet_ids = sorted(files.read_text("wnids.txt").split())
    number = {wordnet_id: label for label, wordnet_id in enumerate(wordnet_ids)}
    synonyms = {wordnet_id: names for wordnet_id, names, *_ in _table(files, "words.txt")}
    classes = tuple(synonyms.get(wordnet_id, wordnet_id).split(",")[0] for wordnet_id in wordnet_ids)

    train_names, train_labels = [], []
    for name in files.names:  # sorted
        if name.startswith("train/") and name.endswith(".JPEG"):
            wordnet_id = name.split("/")[1]
            if wordnet_id not in number:
                raise ValueError(f"{files.path}: {name} is of a class that wnids.txt does not list")
            train_names.append(name)
            train_labels.append(number[wordnet_id])

    val_names, val_labels = [], []
    for name, wordnet_id, *_ in _table(files, "val/val_annotations.txt"):
        if wordnet_id not in number:
            raise ValueError(f"{files.path}: val_annotations.txt has {name} of a class that wnids.txt does not list")
        val_names.append(f"val/images/{name}")
        val_labels.append(number[wordnet_id])

    for folder, labels in (("train", train_labels), ("val", val_labels)):
        for wordnet_id, label in number.items():
            if label not in set(labels):
                raise ValueError(f"{files.path}: class {wordnet_id} ({classes[label]}) has no images in {folder}/")

    images = decode(files, train_names + val_names)
    return TrainTest(
        train=ImageSet(images[: len(train_names)], torch.tensor(train_labels), classes),
        test=ImageSet(images[len(train_names) :], torch.tensor(val_labels), classes),
    )


def _table(files: Files, name: str) -> list[list[str]]:
    """The lines of a text file, cut at tabs; each has at least two columns."""
    rows = [line.split("\t") for line in files.read_text(name).splitlines()]
    for number, row in enumerate(rows, start=1):
        if len(row) < 2:
            raise ValueError(f"{files.path}: {name}: line {number} is {row[0]!r}, where columns cut by tabs belong")
    return rows
