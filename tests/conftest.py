"""Data that the tests make for themselves."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnlesson.data import ImageSet
from cnnlesson.runtime.memory import reuse_freed_memory

os.environ["MPLBACKEND"] = "agg"  # figures are drawn without a screen
reuse_freed_memory()  # as in the lesson: AlexNet is much slower where each step asks the system for its memory

WORDNET_IDS = ("n03", "n01", "n02")  # in no order, as in the official wnids.txt
TRAIN_IMAGES = 12  # a class
VAL_IMAGES = 4  # a class


def jpeg(random: np.random.Generator, size: int = 64, mode: str = "RGB") -> bytes:
    """A JPEG of smooth random colours."""
    coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def tiny_files() -> dict[str, bytes]:
    """The files of a TinyImageNet of three classes, in the official layout, some images in grayscale."""
    random = np.random.default_rng(0)
    files = {
        "wnids.txt": "".join(f"{wordnet_id}\n" for wordnet_id in WORDNET_IDS).encode(),
        "words.txt": b"n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\ttoad\nn03\tlifeboat, rescue boat\n",
    }
    for wordnet_id in WORDNET_IDS:
        files[f"train/{wordnet_id}/{wordnet_id}_boxes.txt"] = b"boxes\n"
        for number in range(TRAIN_IMAGES):
            mode = "L" if number == 1 else "RGB"
            files[f"train/{wordnet_id}/images/{wordnet_id}_{number}.JPEG"] = jpeg(random, mode=mode)
    annotations = []
    for number in range(VAL_IMAGES * len(WORDNET_IDS)):
        name = f"val_{number}.JPEG"
        files[f"val/images/{name}"] = jpeg(random)
        annotations.append(f"{name}\t{WORDNET_IDS[number % len(WORDNET_IDS)]}\t0\t0\t63\t63\n")
    files["val/val_annotations.txt"] = "".join(annotations).encode()
    files["test/images/test_0.JPEG"] = jpeg(random)
    return files


def write_zip(path: Path, files: dict[str, bytes], top: str = "tiny-imagenet-3/") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(top + name, content)
    return path


@pytest.fixture
def make_archive(tmp_path) -> Callable[..., Path]:
    """Call with changes, a dict of file name to bytes or None, for a zip of three classes with those changes."""

    def make(changes: dict[str, bytes | None] | None = None) -> Path:
        files = {name: content for name, content in (tiny_files() | (changes or {})).items() if content is not None}
        return write_zip(tmp_path / "tiny-imagenet-3.zip", files)

    return make


@pytest.fixture
def image_set() -> ImageSet:
    """Thirty images of 16×16 in three classes of 15, 10 and 5, each class with a colour of its own."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 15 + [1] * 10 + [2] * 5)
    images = torch.randint(0, 60, (30, 3, 16, 16), generator=generator, dtype=torch.uint8)
    images[torch.arange(30), labels] += 150
    return ImageSet(images, labels, ("red", "green", "blue"))
