"""The files of a data set, read alike from a zip archive and from an unpacked folder."""

import zipfile
import zlib
from pathlib import Path


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
