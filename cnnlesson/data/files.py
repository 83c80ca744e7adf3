"""The files of a data set: find them in a zip archive or a folder, decode them, and cache the result."""

import hashlib
import os
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as transforms
from tqdm.auto import tqdm

from cnnlesson.data.image_set import ImageSet, TrainTest
from cnnlesson.runtime.atomic import advice, atomic_write

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
# What file managers, archivers and notebooks leave beside the images: hidden files and folders, and these.
STRAY = re.compile(r"(^|[/\\])(\.[^/\\]|__MACOSX|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)
# What is often mistaken for the zip archive, by its first bytes.
OTHER_FORMATS = {
    b"\x1f\x8b": "it is a gzip archive (tar.gz), so unpack it and use the folder",
    b"PAR1": "it is a Parquet table, so look for the images as files",
    b"<": "it is a web page (HTML), so delete it and download the archive again",
}


class Files(AbstractContextManager):
    """Read files of a zip archive or a folder by name, in a `with` block. Nothing is unpacked.

    Attributes:
        path: the archive or folder.
        names: the names of all files but stray ones, sorted, with "/" between folders. They are relative to the folder
            that holds train/, at any depth.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: `path` is neither a folder nor a complete and safe zip archive, or it holds several data sets.
    """

    def __init__(self, path: Path):
        self.path = path = path.expanduser()
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: check the spelling, and the folder you are in")
        if not path.is_dir() and not path.is_file():  # such as a named pipe, from which reading never ends
            raise ValueError(f"{path} is neither a folder nor a file: name a zip archive or a folder of images")
        # Where each file is: its path in the folder, or its entry in the archive.
        self._zip: Any = None if path.is_dir() else self._open_zip()
        places: dict[str, Any] = (
            {name: entry.path for name, entry in _walk(path)} if path.is_dir() else dict(self._entries())
        )
        top = self._find_top(places)
        self._places = {name.removeprefix(top): place for name, place in places.items() if name.startswith(top)}
        self.names = sorted(self._places)

    def _open_zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except zipfile.BadZipFile:
            with self.path.open("rb") as file:
                start = file.read(100).lstrip()
            advice = [text for first_bytes, text in OTHER_FORMATS.items() if start.startswith(first_bytes)]
            raise ValueError(
                f"{self.path} ({self.path.stat().st_size:,} bytes) is not a complete zip archive: "
                f"{advice[0] if advice else 'delete it and download it again'}"
            ) from None

    def _entries(self) -> Iterator[tuple[str, zipfile.ZipInfo]]:
        for info in self._zip.infolist():
            name = info.filename.replace("\\", "/")  # some archives from Windows have backslashes
            if name.startswith("/") or ".." in name.split("/") or ":" in name:
                raise ValueError(
                    f"{self.path} has a file named {name!r}, which leads out of the archive: do not use it"
                )
            if not name.endswith("/") and not STRAY.search(name):
                yield name, info

    def _find_top(self, names: dict) -> str:
        """The highest folder that holds train/, and wnids.txt, val/ or test/: "", or a name that ends in "/"."""
        parents = defaultdict(set)
        for folder in {name if name.endswith("wnids.txt") else name.rpartition("/")[0] for name in names}:
            steps = folder.split("/")
            for depth, step in enumerate(steps):
                parents[step.lower()].add("/".join([*steps[:depth], ""]))
        tops = parents["train"] & (parents["wnids.txt"] | parents["val"] | parents["test"]) or parents["train"] or {""}
        first, *others = sorted(tops, key=lambda top: (top.count("/"), top))
        if others and others[0].count("/") == first.count("/"):
            raise ValueError(f"{self.path} holds several data sets, in {first} and {others[0]}: name one of them")
        return first

    def labelled(self, part: str) -> dict[str, str]:
        """The class of each image in <part>/<class>/ or its subfolders, by file name, in the order of the names."""
        names = [name for name in self.names if name.lower().startswith(f"{part}/") and name.count("/") >= 2]
        return {name: name.split("/")[1] for name in names if name.lower().endswith(EXTENSIONS)}

    def read(self, name: str) -> bytes:
        if name not in self._places:
            raise ValueError(f"{self.path} has no {name}: is it the right data set, and complete?")
        place = self._places[name]
        try:
            return Path(place).read_bytes() if self._zip is None else self._zip.read(place)
        except RuntimeError as error:  # how zipfile reports a missing password, and a method that it does not know
            method = "compressed with a method that Python cannot read (Deflate64)"
            reason = "protected by a password" if "password" in str(error) else method
            raise ValueError(f"{self.path} is {reason}: unpack it and use the folder") from error
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{self.path}: {name} is damaged ({error}): delete it and download it again") from None

    def read_text(self, name: str) -> str:
        content = self.read(name)
        try:
            return content.decode("utf-8-sig")  # with or without a byte order mark
        except UnicodeDecodeError:
            return content.decode("latin-1")

    def __exit__(self, *error: object) -> None:
        if self._zip is not None:
            self._zip.close()


def _walk(folder: str | Path, prefix: str = "", above: tuple[str, ...] = ()) -> Iterator[tuple[str, os.DirEntry]]:
    """Yield each file but stray ones, also behind symbolic links, with its name relative to the first folder."""
    here = os.path.realpath(folder)  # a link may lead back to a folder that contains it
    entries = () if here in above else sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in (entry for entry in entries if not STRAY.search(entry.name)):
        if entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/", (*above, here))
        elif entry.is_file():
            yield prefix + entry.name, entry


def decode_train_test(
    files: Files, parts: dict[str, dict[str, str]], classes: dict[str, str], size: int | None = None, crop: bool = False
) -> TrainTest:
    """Decode the image files of a data set; grayscale becomes RGB with three equal channels.

    One CPU core decodes more than 10,000 images of 64×64 pixels per second, straight from the archive. Threads and
    processes do not help: an image is so small that passing it on costs as much as decoding it.

    Args:
        parts: the folder of the training and of the test images, each with the class of each image by file name.
        classes: a readable name for each class, in the order of the labels; if empty, the names in `parts`, sorted.
        size: if the images have several sizes, each is resized and cropped to this height and width.
    """
    train, test = parts.values()
    if not train:
        raise ValueError(f"{files.path} has no images in train/<class>/; it holds {', '.join(files.names[:3])} ...")
    classes = classes or {key: key for key in sorted({*train.values(), *test.values()})}
    for part, class_by_name in parts.items():
        for key in sorted(set(classes) - set(class_by_name.values())):
            raise ValueError(f"{files.path}: class {key} ({classes[key]}) has no images in {part}/{key}/: add some")
    class_of = train | test
    images = torch.empty(0)
    for number, name in enumerate(tqdm(class_of, desc="decoding", unit=" images", leave=False)):
        content = files.read(name)
        try:
            if not content:
                raise RuntimeError("the file is empty")
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            image = decode_image(data, mode=ImageReadMode.RGB, apply_exif_orientation=True)  # (3, H, W)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{files.path}: {name} cannot be decoded as an image: {reason}") from None
        if image.dtype == torch.uint16:  # some PNG files have 16 bits per channel
            image = (image.float() / 257).round().to(torch.uint8)
        if crop:
            image = transforms.center_crop(transforms.resize(image, [size]), [size])  # (3, size, size)
        if number == 0:
            images = torch.empty((len(class_of), *image.shape), dtype=torch.uint8)
        if image.shape != images.shape[1:] and size is not None:
            print(f"The images of {files.path} have several sizes: each is resized and cropped to {size}×{size}.")
            return decode_train_test(files, parts, classes, size, crop=True)
        if image.shape != images.shape[1:]:
            raise ValueError(
                f"{files.path}: all images must have the size of the first, {images.shape[2]}×{images.shape[3]} "
                f"pixels, but {name} has {image.shape[1]}×{image.shape[2]}: resize it, or give image_folder a size"
            )
        images[number] = image

    label_of = {key: label for label, key in enumerate(classes)}
    labels = torch.tensor([label_of[key] for key in class_of.values()])
    lengths = [len(train), len(test)]
    pairs = zip(images.split(lengths), labels.split(lengths), strict=True)
    return TrainTest(*(ImageSet(*pair, tuple(classes.values())) for pair in pairs))


def save_cache(data: TrainTest, path: Path, source: Path, fingerprint: str) -> TrainTest:
    """Write `data` to `path`, and return it memory-mapped from there, or as it is if the file cannot be written.

    `fingerprint` is what `fingerprint_of` returned before the images were read from `source`, an archive or folder.
    """
    content = {"path": str(source.absolute()), "source": fingerprint, "classes": data.train.classes}
    for part, image_set in data._asdict().items():
        content[part] = (image_set.images, image_set.labels)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as unfinished:
            torch.save(content, unfinished)
    except (OSError, RuntimeError) as error:  # torch.save reports some failed writes as RuntimeError
        print(
            f"{path} could not be written ({str(error).splitlines()[0]}), so the next run decodes the images again: "
            f"{advice(error)}, or use another folder"
        )
        return data
    return load_cache(path, None) or data


def load_cache(path: Path, source: Path | None) -> TrainTest | None:
    """The images that `save_cache` wrote, or None if there is no intact cache of this `source`.

    If the source no longer exists (the archive may be deleted to save space), its last cache is returned; with None,
    any intact cache. The images are memory-mapped: read from disk when they are used, never changed there.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, mmap=True, weights_only=True)
        classes = tuple(content["classes"])
        data = TrainTest(*(ImageSet(content[part][0], content[part][1], classes) for part in TrainTest._fields))
    except Exception as error:  # a damaged file, or one of another program, can raise anything
        print(f"{path} is damaged and will be written again ({type(error).__name__})")
        return None
    if source is None:
        return data
    if not source.exists():
        return data if content["path"] == str(source.absolute()) else None
    return data if content["source"] == fingerprint_of(source) else None


def fingerprint_of(source: Path) -> str:
    """A digest of the size and modification time of an archive, or of each image and table of a folder."""
    digest = hashlib.sha256()
    for name, file in _walk(source) if source.is_dir() else [("", source)]:
        if not name or name.lower().endswith((*EXTENSIONS, ".txt")):
            digest.update(os.fsencode(f"{name} {file.stat().st_size} {file.stat().st_mtime_ns}\n"))
    return digest.hexdigest()
