"""The files of a data set: read them from a zip archive or a folder, decode them, and cache the result."""

import zipfile
import zlib
from pathlib import Path

import torch
from torchvision.io import ImageReadMode, decode_image
from tqdm.auto import tqdm

from cnnlesson.data.image_set import ImageSet, TrainTest
from cnnlesson.runtime.atomic import atomic_write


class Files:
    """Read files of a zip archive or a folder by name, in a `with` block, which closes the archive.

    Nothing is unpacked: files are read straight from the archive.

    Attributes:
        path: the archive or folder.
        names: the names of all files, sorted, with "/" between folders. If an archive has a single top-level folder,
            names are relative to that folder.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: `path` is neither a folder nor a complete zip archive, or a name in it leads out of the archive.
    """

    def __init__(self, path: Path):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: check the spelling, and the folder you are in")
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._top = ""
        if not path.is_dir() and not path.is_file():  # such as a named pipe, from which reading never ends
            raise ValueError(f"{path} is neither a folder nor a file: name a zip archive or a folder of images")
        if path.is_dir():
            self.names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        else:
            self._open_zip()

    def _open_zip(self) -> None:
        try:
            self._zip = zipfile.ZipFile(self.path)
        except zipfile.BadZipFile:
            size = self.path.stat().st_size
            raise ValueError(
                f"{self.path} ({size:,} bytes) is not a complete zip archive: delete it and download it again"
            ) from None
        names = [info.filename for info in self._zip.infolist() if not info.is_dir()]
        for name in names:
            if name.startswith("/") or ".." in name.split("/") or ":" in name:
                raise ValueError(
                    f"{self.path} has a file named {name!r}, which leads out of the archive: do not use it"
                )
        names = [name for name in names if not name.startswith("__MACOSX/")]
        tops = {name.split("/")[0] for name in names}
        self._top = f"{tops.pop()}/" if len(tops) == 1 else ""
        self.names = sorted(name.removeprefix(self._top) for name in names)

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes() if self._zip is None else self._zip.read(self._top + name)
        except (FileNotFoundError, KeyError):
            raise ValueError(f"{self.path} has no {name}: is it the right data set, and complete?") from None
        except RuntimeError as error:  # how zipfile reports a missing password
            raise ValueError(f"{self.path} is protected by a password: unpack it and use the folder") from error
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"{self.path}: {name} is damaged ({error}): delete the archive and download it again"
            ) from None

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *error: object) -> None:
        if self._zip is not None:
            self._zip.close()


def decode_train_test(
    files: Files, train: list[tuple[str, str]], test: list[tuple[str, str]], classes: dict[str, str]
) -> TrainTest:
    """Decode the image files of a data set, all of one size; grayscale becomes RGB with three equal channels.

    One CPU core decodes more than 10,000 images of 64×64 pixels per second, straight from the archive. Threads and
    processes do not help: an image is so small that passing it on costs as much as decoding it.

    Args:
        train, test: (file name, class) of each image.
        classes: a readable name for each class, in the order of the labels.

    Raises:
        ValueError: a file cannot be decoded, or its size differs from the first; the message names the file.
    """
    images = torch.empty(0)
    for number, (name, _) in enumerate(tqdm(train + test, desc="decoding", unit=" images", leave=False)):
        try:
            data = torch.frombuffer(bytearray(files.read(name)), dtype=torch.uint8)
            image = decode_image(data, mode=ImageReadMode.RGB)  # (3, H, W)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{files.path}: {name} cannot be decoded as an image: {reason}") from None
        if number == 0:
            images = torch.empty((len(train + test), *image.shape), dtype=torch.uint8)
        if image.shape != images.shape[1:]:
            height, width = images.shape[2:]
            raise ValueError(
                f"{files.path}: all images must have the size of the first, {height}×{width} pixels, but {name} has "
                f"{image.shape[1]}×{image.shape[2]}"
            )
        images[number] = image

    label_of = {key: label for label, key in enumerate(classes)}
    labels = torch.tensor([label_of[key] for _, key in train + test])
    names = tuple(classes.values())
    return TrainTest(
        train=ImageSet(images[: len(train)], labels[: len(train)], names),
        test=ImageSet(images[len(train) :], labels[len(train) :], names),
    )


def save_cache(data: TrainTest, path: Path, source: Path) -> TrainTest:
    """Write `data` to `path`, and return it memory-mapped from there; `source` is the archive or folder it came from.

    Raises:
        OSError: the file cannot be written, for example because the disk is full; no partial file is left.
    """
    content = {
        "source": _fingerprint(source),
        "classes": data.train.classes,
        "train_images": data.train.images,
        "train_labels": data.train.labels,
        "test_images": data.test.images,
        "test_labels": data.test.labels,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(path) as unfinished:
            torch.save(content, unfinished)
    except (OSError, RuntimeError) as error:  # torch.save reports some failed writes as RuntimeError
        size = data.train.images.nbytes + data.test.images.nbytes
        raise OSError(
            f"the decoded images ({size / 1e6:,.0f} MB) could not be written to {path}: free some space on that disk, "
            f"or use another folder ({error})"
        ) from error
    return load_cache(path, source) or data


def load_cache(path: Path, source: Path) -> TrainTest | None:
    """The images that `save_cache` wrote, or None if there is no intact cache of this `source`.

    If the source no longer exists (the archive may be deleted to save space), any intact cache is returned. The
    images are memory-mapped: they are read from disk when they are used, and changing them does not change the file.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, mmap=True, weights_only=True)
        classes = tuple(content["classes"])
        data = TrainTest(
            train=ImageSet(content["train_images"], content["train_labels"], classes),
            test=ImageSet(content["test_images"], content["test_labels"], classes),
        )
    except Exception as error:  # a damaged file, or one of another program, can raise anything
        print(f"{path} is damaged and will be written again ({type(error).__name__})")
        return None
    if source.exists() and content["source"] != _fingerprint(source):
        return None
    return data


def _fingerprint(source: Path) -> list[int]:
    """The size and modification time of the archive or folder, which change when it is replaced."""
    status = source.stat()
    return [status.st_size, status.st_mtime_ns]
