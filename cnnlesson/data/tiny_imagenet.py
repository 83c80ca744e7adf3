"""TinyImageNet: 200 classes of ImageNet with 500 training and 50 validation images each, of 64×64 pixels."""

import os
from pathlib import Path

from cnnlesson.data.download import download
from cnnlesson.data.files import Files, decode_train_test, fingerprint_of, load_cache, save_cache
from cnnlesson.data.image_set import TrainTest

# Stanford's course CS231n created the data set and publishes it; ImageNet's own site and Zenodo have the same file.
MIRRORS = (
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "https://image-net.org/data/tiny-imagenet-200.zip",
    "https://zenodo.org/records/10720917/files/tiny-imagenet-200.zip?download=1",
)
SIZE = 248_100_043  # bytes
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def tiny_imagenet(root: str | os.PathLike, archive: str | os.PathLike | None = None) -> TrainTest:
    """TinyImageNet's images, read from `root` or downloaded to it.

    `.train` is the official training split (100,000 images), `.test` the official validation split (10,000), whose
    labels are published. The official test images have no labels and are not used.

    The first call looks under `root` for tiny-imagenet-200.zip or an unpacked folder, downloads the archive if there is
    neither, decodes every image, and writes a cache to `root`. Later calls only map the cache into memory.

    Args:
        root: a folder for the download and the cache; it is created if it does not exist.
        archive: another zip archive or unpacked folder with the same layout, with any number of classes.

    Raises:
        ConnectionError, OSError: the download failed, or the disk is full; the message says what to do.
        ValueError: the archive is damaged or has another layout; the message names the file.
    """
    root = Path(root).expanduser()
    source = _find(root) if archive is None else Path(archive).expanduser()
    name = "tiny-imagenet-200" if archive is None else Path(archive).name.removesuffix(".zip")
    cache = root / f"{name}.pt"
    data = load_cache(cache, source)
    if data is None:
        source = source or download(MIRRORS, root / "tiny-imagenet-200.zip", SIZE, MD5)
        with Files(source) as files:
            fingerprint = fingerprint_of(source)  # before the files are read: it shows that one has changed since
            data = save_cache(_read(files), cache, source, fingerprint)
    return data


def _find(root: Path) -> Path | None:
    """The archive, or the folder it was unpacked to; a browser or file manager may have added to their names."""
    name = "tiny-imagenet-200"
    for pattern in (f"{name}.zip", f"{name}*.zip", "wnids.txt", f"{name}*/wnids.txt", f"{name}*/*/wnids.txt"):
        for path in sorted(root.glob(pattern)):
            return path if path.suffix == ".zip" else path.parent
    return None


def _read(files: Files) -> TrainTest:
    words = _table(files, "words.txt") if "words.txt" in files.names else []
    synonyms = {wordnet_id: names for wordnet_id, names, *_ in words}
    # Labels follow the order of the WordNet identifiers, as torchvision's ImageFolder orders folders.
    wordnet_ids = sorted(files.read_text("wnids.txt").split())
    classes = {wordnet_id: synonyms.get(wordnet_id, wordnet_id).split(",")[0] for wordnet_id in wordnet_ids}

    train = files.labelled("train")
    # Officially, all validation images are in val/images/. Many people have sorted them into class folders.
    val = {name: wordnet_id for name, wordnet_id in files.labelled("val").items() if wordnet_id != "images"}
    if not val:
        val = {f"val/images/{name}": key for name, key, *_ in _table(files, "val/val_annotations.txt")}
    for name, wordnet_id in (*train.items(), *val.items()):
        if wordnet_id not in classes:
            raise ValueError(f"{files.path}: {name} is of class {wordnet_id}, which wnids.txt does not list")
    return decode_train_test(files, {"train": train, "val": val}, classes)


def _table(files: Files, name: str) -> list[list[str]]:
    """The lines of a text file but blank ones, split at tabs, each with at least two columns."""
    rows = [line.strip().split("\t") for line in files.read_text(name).splitlines()]
    for number, row in enumerate(rows, start=1):
        if len(row) < 2 and row != [""]:
            raise ValueError(f"{files.path}: {name}: line {number} must have columns separated by tabs, got {row[0]!r}")
    return [row for row in rows if len(row) >= 2]
