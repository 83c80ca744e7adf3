"""Files that are written completely or not at all."""

import errno
import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield the path of a new file beside `path`, and rename the file to `path` when the block ends.

    An existing file at `path` stays as it is until then, even if the process dies or the disk is full. If the block
    raises, the new file is removed. A process that is killed leaves it behind: see `remove_unfinished`.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.open("wb").close()  # if it cannot be created, this raises an OSError with the cause, unlike torch.save
    try:
        yield unfinished
        with unfinished.open("r+b") as file:
            os.fsync(file.fileno())  # otherwise, after a crash of the machine, the file could be there but empty
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(path: str | os.PathLike) -> None:
    """Remove unfinished files for `path` that killed processes have left behind. No process may be writing it now."""
    path = Path(path)
    for unfinished in path.parent.glob(f"{glob.escape(path.name)}.*.unfinished"):
        unfinished.unlink(missing_ok=True)


def advice(error: Exception) -> str:
    """What to do about a file that cannot be written, by the cause: a part of the error message."""
    number = getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "you may not write there: change the permissions of the file and its folder"
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None):  # torch.save reports a full disk without a number
        return "free some space on that disk"
    return "check that its folder still exists"


def make_folder(path: str | os.PathLike) -> Path:
    """Create the folder `path` if it does not exist, and return it.

    Raises:
        OSError: it cannot be created; the message is one line.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the folder {path} cannot be created ({error.strerror}): name another one") from error
    return path
