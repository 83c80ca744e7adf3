"""Small data sets for the tests."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_files import tiny_files, write_zip

from cnnlesson.data import ImageSet
from cnnlesson.runtime.memory import reuse_freed_memory

os.environ["MPLBACKEND"] = "agg"  # figures are drawn without a screen
reuse_freed_memory()  # as in the lesson: AlexNet is much slower if each step requests its memory from the system


@pytest.fixture
def make_archive(tmp_path) -> Callable[..., Path]:
    """make_archive(changes) writes a zip of three classes; `changes` maps file names to new contents or None."""

    def make(changes: dict[str, bytes | None] | None = None) -> Path:
        files = {name: content for name, content in (tiny_files() | (changes or {})).items() if content is not None}
        return write_zip(tmp_path / "tiny-imagenet-3.zip", files)

    return make


@pytest.fixture
def image_set() -> ImageSet:
    """Thirty images of 16×16 in three classes of 15, 10 and 5 images; each class has its own colour."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 15 + [1] * 10 + [2] * 5)
    images = torch.randint(0, 60, (30, 3, 16, 16), generator=generator, dtype=torch.uint8)
    images[torch.arange(30), labels] += 150
    return ImageSet(images, labels, ("red", "green", "blue"))
