"""Measured results that ship with the lesson.

NAME.csv contains the numbers. NAME.json records how they were made: command, commit, versions, CPU, data, seeds, date.
"""

import hashlib
import json
import platform
import subprocess
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from packaging.version import Version

from cnnlesson import __version__
from cnnlesson.data import ImageSet
from cnnlesson.runtime.atomic import atomic_write
from cnnlesson.runtime.device import threads

FOLDER = Path(__file__).parent


class Reference(NamedTuple):
    """A table of measured results, and how it was made."""

    table: pd.DataFrame
    made: dict


def load(name: str, folder: Path = FOLDER) -> Reference:
    """The table NAME.csv and its record NAME.json, such as `load("cifar10_depth")`.

    Raises:
        FileNotFoundError: one of the two files is missing; the message lists the results that are available.
        ValueError: the table is not the one that the record was written for.
    """
    table, record = folder / f"{name}.csv", folder / f"{name}.json"
    for path in (table, record):
        if not path.exists():
            names = ", ".join(sorted(path.stem for path in folder.glob("*.csv"))) or "nothing"
            raise FileNotFoundError(f"{path} is missing: a result is {name}.csv and {name}.json ({folder} has {names})")
    try:
        made = json.loads(record.read_text(encoding="utf-8"))
        expected = made["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{record} is not a record of measured results: write both files again with `save`") from error
    found = hashlib.sha256(table.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(
            f"{table} was changed after it was measured (SHA-256 {found[:12]}…, expected {expected[:12]}…): "
            "get both files again, or repeat the measurement"
        )
    # pandas 3.1 reads floats exactly by default, and deprecates the option that makes older versions do it.
    options = {} if Version(pd.__version__) >= Version("3.1") else {"float_precision": "round_trip"}
    # Bits in hexadecimal, which may look like a number.
    return Reference(pd.read_csv(table, dtype={"val_right": str, "test_right": str}, **options), made)


def save(name: str, table: pd.DataFrame, made: dict, folder: Path) -> None:
    """Write NAME.csv, and NAME.json with `made` and the table's digest, for `load`."""
    for filename, content in files(name, table, made).items():
        with atomic_write(folder / filename) as unfinished:
            unfinished.write_bytes(content)


def files(name: str, table: pd.DataFrame, made: dict) -> dict[str, bytes]:
    """The contents of the files that `save` writes, by name."""
    text = table.to_csv(index=False, lineterminator="\n").encode()
    record = made | {"sha256": hashlib.sha256(text).hexdigest()}
    return {f"{name}.csv": text, f"{name}.json": (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()}


def circumstances(device: torch.device) -> dict[str, str]:
    """What a measurement depends on besides its command: commit, versions, CPU, GPU and date."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "torchvision": version("torchvision"),
        "cpu": _cpu(),
        **({"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}),
        "date": date.today().isoformat(),
    }


def images_digest(*image_sets: ImageSet) -> str:
    """SHA-256 of the decoded images and the labels of the sets, one set after the other."""
    digest = hashlib.sha256()
    for image_set in image_sets:
        for tensor in (image_set.images, image_set.labels):
            digest.update(tensor.cpu().contiguous().numpy())
    return digest.hexdigest()


def _commit() -> str:
    """The commit of the package's checkout, with -dirty if files have changed since; else the package's version."""
    if not (FOLDER.parents[1] / ".git").exists():  # installed, perhaps inside the checkout of another project
        return f"version {__version__}"
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=FOLDER, capture_output=True, encoding="utf-8", check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"version {__version__}"


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {threads()}"
