"""Decoded images on disk, in one file that the next run maps into memory."""

from pathlib import Path

import torch

from cnnlesson.data.image_set import ImageSet, TrainTest
from cnnlesson.runtime.atomic import whole_file


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
        with whole_file(path) as unfinished:
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
