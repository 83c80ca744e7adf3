"""TinyImageNet: 200 classes of ImageNet with 500 training and 50 validation images each, of 64×64 pixels."""

import os
from pathlib import Path

from cnnlesson.data.download import download
from cnnlesson.data.files import Files, decode_train_test, load_cache, save_cache
from cnnlesson.data.image_set import TrainTest

# Stanford's course CS231n created the data set and publishes it; ImageNet's own site has the same file.
MIRRORS = (
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "https://image-net.org/data/tiny-imagenet-200.zip",
)
SIZE = 248_100_043  # bytes
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def tiny_imagenet(root: str | os.PathLike, archive: str | os.PathLike | None = None) -> TrainTest:
    """TinyImageNet's images, read from `root` or downloaded to it.

    `.train` is the official training split (100,000 images), `.test` the official validation split (10,000), whose
    labels are published. The official test images have no labels and are not used.

    The first call looks for tiny-imagenet-200.zip or the unpacked folder tiny-imagenet-200 under `root`, downloads the
    archive if neither exists, decodes every image, and writes a cache next to it. Later calls only map the cache into
    memory.

    Args:
        root: a folder for the download and the cache; it is created if it does not exist.
        archive: another zip archive or unpacked folder with the same layout, with any number of classes.

    Raises:
        ConnectionError, OSError: the download failed, or the disk is full; the message says what to do.
        ValueError: the archive is damaged or has another layout; the message names the file.
    """
    root = Path(root)
    official = root / "tiny-imagenet-200.zip"
    source = official if archive is None else Path(archive)
    if archive is None and not official.exists() and official.with_suffix("").exists():
        source = official.with_suffix("")  # the unpacked folder
    cache = root / f"{source.name.removesuffix('.zip')}.pt"
    data = load_cache(cache, source)
    if data is None:
        if archive is None and not source.exists():
            download(MIRRORS, official, SIZE, MD5)
        with Files(source) as files:
            data = _read(files)
        data = save_cache(data, cache, source)
    return data


def _read(files: Files) -> TrainTest:
    # Labels follow the order of the WordNet identifiers, as torchvision's ImageFolder orders folders.
    synonyms = {wordnet_id: names for wordnet_id, names, *_ in _table(files, "words.txt")}
    wordnet_ids = sorted(files.read("wnids.txt").decode().split())
    classes = {wordnet_id: synonyms.get(wordnet_id, wordnet_id).split(",")[0] for wordnet_id in wordnet_ids}

    train_names = [name for name in files.names if name.startswith("train/") and name.endswith(".JPEG")]
    train = [(name, name.split("/")[1]) for name in train_names]
    val = [(f"val/images/{name}", wordnet_id) for name, wordnet_id, *_ in _table(files, "val/val_annotations.txt")]
    for folder, images in (("train", train), ("val", val)):
        for name, wordnet_id in images:
            if wordnet_id not in classes:
                raise ValueError(f"{files.path}: {name} is of class {wordnet_id}, which wnids.txt does not list")
        missing = sorted(set(classes) - {wordnet_id for _, wordnet_id in images})
        if missing:
            raise ValueError(f"{files.path}: class {missing[0]} ({classes[missing[0]]}) has no images in {folder}/")
    return decode_train_test(files, train, val, classes)


def _table(files: Files, name: str) -> list[list[str]]:
    """The lines of a text file, split at tabs, each with at least two columns."""
    rows = [line.split("\t") for line in files.read(name).decode().splitlines()]
    for number, row in enumerate(rows, start=1):
        if len(row) < 2:
            raise ValueError(f"{files.path}: {name}: line {number} must have columns separated by tabs, got {row[0]!r}")
    return rows
