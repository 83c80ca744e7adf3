"""The files of a data set: read from a zip archive or a folder, decoded, and kept decoded in a cache."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision.io import ImageReadMode, decode_image
from tqdm.auto import tqdm

from cnnlesson.data.image_set import ImageSet, TrainTest
from cnnlesson.runtime.atomic import atomic_write


class Files:
    """Read-only access to files by name; use it in a `with`, which closes the archive.

    Nothing is unpacked: a file's bytes come straight from the archive.

    Attributes:
        path: the archive or folder.
        names: the names of all files, sorted, with "/" between folders and without the one folder that holds all.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: `path` is neither a folder nor a whole zip archive, or its names would lead out of it.
    """

    def __init__(self, path: Path):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: check the spelling, and the folder you are in")
        self.path = path
        self._zip = None
        self._top = ""
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
                f"{self.path} ({size:,} bytes) is not a whole zip archive: delete it and fetch it again"
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
            raise ValueError(f"{self.path} has no {name}: is it the right one, and whole?") from None
        except RuntimeError as error:  # zipfile's word for a password
            raise ValueError(f"{self.path} is protected by a password: unpack it, and name the folder") from error
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"{self.path}: {name} is damaged ({error}): delete the archive and fetch it again"
            ) from None

    def read_text(self, name: str) -> str:
        return self.read(name).decode()

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *error) -> None:
        if self._zip is not None:
            self._zip.close()


def decode(files: Files, names: Sequence[str]) -> torch.Tensor:
    """Decode image files of one size into uint8 (N, 3, H, W); grayscale becomes RGB with three equal channels.

    One processor core decodes more than 10,000 images of 64×64 a second, straight from the archive. Threads and
    processes were tried and left out: an image is so small that handing it over costs as much as decoding it.

    Raises:
        ValueError: a file cannot be decoded, or differs in size from the first; names it.
    """
    images = None
    for number, name in enumerate(tqdm(names, desc="decoding", unit=" images", leave=False)):
        try:
            data = torch.frombuffer(bytearray(files.read(name)), dtype=torch.uint8)
            image = decode_image(data, mode=ImageReadMode.RGB)  # (3, H, W)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{files.path}: {name} cannot be decoded as an image: {reason}") from None
        if images is None:
            images = torch.empty((len(names), *image.shape), dtype=torch.uint8)
        if image.shape != images.shape[1:]:
            height, width = images.shape[2:]
            raise ValueError(
                f"{files.path}: {name} has {image.shape[1]}×{image.shape[2]} pixels "
                f"where the others have {height}×{width}"
            )
        images[number] = image
    return images


def save_cache(data: TrainTest, path: Path, source: Path) -> TrainTest:
    """Write `data` into `path`, and return it mapped from there; `source` is the archive or folder it came from.

    Raises:
        OSError: the file cannot be written, such as on a full disk; nothing is left of it.
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
            f"the decoded images ({size / 1e6:,.0f} MB) could not be written to {path}: free some room on that disk, "
            f"or name another folder ({error})"
        ) from error
    return load_cache(path, source)


def load_cache(path: Path, source: Path | None) -> TrainTest | None:
    """The images that `save_cache` wrote, or None where there is no whole cache of this `source`.

    Where the source is gone, because the archive was deleted to save room, any whole cache will do. The images are
    mapped: they are read from disk when they are used, and changing them changes nothing on disk.
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
    except Exception as error:  # whatever a damaged file, or one of another program, raises
        print(f"{path} is damaged and will be made anew ({type(error).__name__})")
        return None
    if source is not None and source.exists() and content["source"] != _fingerprint(source):
        return None
    return data


def _fingerprint(source: Path) -> list[int]:
    """Changes when the archive or the folder is replaced: its size and the time of its last change."""
    status = source.stat()
    return [status.st_size, status.st_mtime_ns]
