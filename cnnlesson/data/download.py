"""Fetching a large file over a network that breaks."""

import hashlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import requests
from tqdm.auto import tqdm

TIMEOUT = (10, 30)  # seconds to wait for the connection, and then for the next bytes
TRIES = 4  # tries in a row that bring no new byte before a mirror is given up
PAUSE = 1.0  # seconds before the second try; doubled for each further one


def download(mirrors: Sequence[str], path: Path, size: int, md5: str) -> Path:
    """Fetch a file of `size` bytes into `path` from the first of `mirrors` that delivers it whole.

    What has arrived is kept in `path` with ".part" added, and a later try, run or mirror goes on from its end. The
    file gets its own name only when its size and MD5 are right.

    Raises:
        ConnectionError: no mirror delivered the file; says why for each, and what to do by hand.
        OSError: the disk has no room.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    missing = size - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(path.parent).free
    if missing > free:
        raise OSError(
            f"{path.name} needs {missing / 1e6:,.0f} MB more on the disk of {path.parent}, and {free / 1e6:,.0f} MB "
            "are free: free some, or name another folder"
        )
    reasons = []
    for number, url in enumerate(mirrors):
        if number:
            print(f"{reasons[-1]}; now trying {url}")
        try:
            _fetch(url, part, size)
            _verify(part, size, md5)
        except (requests.RequestException, ConnectionError) as error:
            reasons.append(f"{url} failed: {_in_one_line(error)}")
        else:
            part.replace(path)
            return path
    raise ConnectionError(
        f"{path.name} could not be downloaded. {'; '.join(reasons)}. Run this again to go on from the "
        f"{part.stat().st_size if part.exists() else 0:,} bytes that are here, or fetch one of these addresses with a "
        f"browser and save it as {path}"
    )


def _fetch(url: str, part: Path, size: int) -> None:
    """Append to `part` until it has `size` bytes, trying again as long as every try brings some."""
    failures = 0
    with tqdm(total=size, unit="B", unit_scale=True, desc=part.stem, leave=False) as bar:
        while (start := part.stat().st_size if part.exists() else 0) < size:
            bar.n = start
            bar.refresh()
            try:
                _fetch_rest(url, part, start, size, bar)
                cause = ConnectionError("the connection ended early")
            except requests.RequestException as error:
                if error.response is not None and error.response.status_code < 500:
                    raise  # the server answered, and another try gets the same answer
                cause = error
            if part.exists() and part.stat().st_size > start:
                failures = 0
            else:
                failures += 1
                if failures == TRIES:
                    raise cause
                time.sleep(PAUSE * 2 ** (failures - 1))


def _fetch_rest(url: str, part: Path, start: int, size: int, bar: tqdm) -> None:
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-"}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        length = int(response.headers.get("Content-Length", size - start if goes_on else size))
        if length != (size - start if goes_on else size):
            raise requests.RequestException(
                f"it offers {length:,} bytes where {size:,} were expected", response=response
            )
        if not goes_on:
            bar.n = 0  # the server sends the whole file, whatever it was asked for
        with part.open("ab" if goes_on else "wb") as file:
            for block in response.iter_content(1 << 14):
                file.write(block)
                bar.update(len(block))


def _verify(part: Path, size: int, md5: str) -> None:
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    if part.stat().st_size != size or digest != md5:
        found = f"{part.stat().st_size:,} bytes with MD5 {digest}"
        part.unlink()  # going on from wrong bytes would never end right
        raise ConnectionError(f"it sent another file, {found}, where {size:,} bytes with MD5 {md5} were expected")


def _in_one_line(error: Exception) -> str:
    """What happened, out of the errors in errors that requests raises."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    cause = getattr(error, "reason", None) or error
    return str(cause.args[0] if cause.args else cause).rsplit("): ", 1)[-1]
