"""Files that are there whole or not at all."""

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file beside `path`, under the name that comes back, and rename it to `path` when the block ends.

    What stood at `path` stays until then, also when the process dies or the disk is full, and a block that raises
    leaves nothing behind. A process that is killed leaves its unfinished file: see `remove_unfinished`.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        with unfinished.open("r+b") as file:
            os.fsync(file.fileno())  # or a crash of the machine could keep the new name and lose what is in the file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(path: str | os.PathLike) -> None:
    """Remove what killed processes have left of their work on `path`; only for who knows that nobody writes it now."""
    path = Path(path)
    for unfinished in path.parent.glob(f"{glob.escape(path.name)}.*.unfinished"):
        unfinished.unlink(missing_ok=True)


def make_folder(path: str | os.PathLike) -> Path:
    """The folder `path`, made where it is missing.

    Raises:
        OSError: it cannot be made, in one line.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the folder {path} cannot be made ({error.strerror}): name another one") from error
    return path
