"""Download a large file over an unreliable network."""

import hashlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import requests
from tqdm.auto import tqdm

TIMEOUT = (10, 30)  # seconds to wait for the connection, and then for the next bytes
TRIES = 4  # attempts in a row without a new byte before the next mirror is tried
PAUSE = 1.0  # seconds before the second attempt; doubled for each further one


def download(mirrors: Sequence[str], path: Path, size: int, md5: str) -> Path:
    """Download a file of `size` bytes to `path`, from the first of `mirrors` that delivers it completely.

    Received bytes are kept in `path` with ".part" appended; a later attempt, run or mirror resumes from there. The
    file is renamed to `path` once its size and MD5 are correct.

    Raises:
        ConnectionError: no mirror delivered the file; the message has the reason for each, and what to do by hand.
        OSError: there is not enough space on the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    missing = size - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(path.parent).free
    if missing > free:
        raise OSError(
            f"{path.name} needs {missing / 1e6:,.0f} MB on the disk of {path.parent}, which has {free / 1e6:,.0f} MB "
            "left: free some space, or use another folder"
        )
    reasons = []
    for url in mirrors:
        if reasons:
            print(f"{reasons[-1]}; trying {url}")
        try:
            _fetch(url, part, size)
            _verify(part, size, md5)
        except (requests.RequestException, ConnectionError) as error:
            reasons.append(f"{url} failed: {_in_one_line(error)}")
        else:
            part.replace(path)
            return path
    raise ConnectionError(
        f"{path.name} could not be downloaded. {'; '.join(reasons)}. Run this again to resume after the "
        f"{part.stat().st_size if part.exists() else 0:,} bytes received so far, or download the file from one of "
        f"these addresses in a browser and save it as {path}"
    )


def _fetch(url: str, part: Path, size: int) -> None:
    """Append to `part` until it has `size` bytes; give up after TRIES attempts in a row without a new byte."""
    failures = 0
    with tqdm(total=size, unit="B", unit_scale=True, desc=part.stem, leave=False) as bar:
        while (start := part.stat().st_size if part.exists() else 0) < size:
            bar.n = start
            bar.refresh()
            try:
                _fetch_rest(url, part, start, size, bar)
                cause: OSError = ConnectionError("the connection ended early")
            except requests.RequestException as error:
                if error.response is not None and error.response.status_code < 500:
                    raise  # such as 404: another attempt would get the same answer
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
        resumes = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        expected = size - start if resumes else size
        length = int(response.headers.get("Content-Length", expected))
        if length != expected:
            raise requests.RequestException(f"expected {expected:,} bytes, got {length:,}", response=response)
        if not resumes:
            bar.n = 0  # the server ignored the range and sends the whole file
        with part.open("ab" if resumes else "wb") as file:
            for block in response.iter_content(1 << 14):
                file.write(block)
                bar.update(len(block))


def _verify(part: Path, size: int, md5: str) -> None:
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    if part.stat().st_size != size or digest != md5:
        found = f"{part.stat().st_size:,} bytes with MD5 {digest}"
        part.unlink()  # or every later attempt would resume after wrong bytes
        raise ConnectionError(f"the file is wrong: expected {size:,} bytes with MD5 {md5}, got {found}")


def _in_one_line(error: Exception) -> str:
    """The innermost reason: requests nests errors in errors."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    cause = getattr(error, "reason", None) or error
    return str(cause.args[0] if cause.args else cause).rsplit("): ", 1)[-1]
