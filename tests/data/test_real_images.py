"""Real images: runs if CNNLESSON_TINY_IMAGENET names an archive with TinyImageNet's layout."""

import os
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from cnnlesson.data import ImageSet, find_leaks, take, tiny_imagenet

ARCHIVE = os.environ.get("CNNLESSON_TINY_IMAGENET")

pytestmark = pytest.mark.skipif(ARCHIVE is None, reason="CNNLESSON_TINY_IMAGENET names no archive")


def test_every_training_image_is_decoded_as_pillow_does(tmp_path):
    data = tiny_imagenet(tmp_path, archive=ARCHIVE)
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path / "unpacked")
    (train_folder,) = (tmp_path / "unpacked").glob("*/train")
    folder = ImageFolder(train_folder)
    assert len(folder) == len(data.train)
    assert torch.equal(torch.tensor(folder.targets), data.train.labels)
    for number, (image, _) in enumerate(folder):
        assert torch.equal(pil_to_tensor(image), data.train.images[number]), folder.samples[number][0]


def test_the_validation_images_have_their_labels(tmp_path):
    data = tiny_imagenet(tmp_path, archive=ARCHIVE)
    with zipfile.ZipFile(ARCHIVE) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("val_annotations.txt")]
        lines = archive.read(name).decode().splitlines()
        (words,) = [name for name in archive.namelist() if name.endswith("words.txt")]
        names = dict(line.split("\t") for line in archive.read(words).decode().splitlines())
    assert len(lines) == len(data.test)
    for line, label in zip(lines, data.test.labels, strict=True):
        assert names[line.split("\t")[1]].split(",")[0] == data.test.classes[label]
    assert Path(tmp_path, Path(ARCHIVE).stem + ".pt").exists()


def test_shifted_copies_are_found_and_nothing_else(tmp_path):
    data = tiny_imagenet(tmp_path, archive=ARCHIVE)
    train = take(data.train, 3000, seed=0)
    assert find_leaks(train, data.test, device="cpu").empty
    for shift in (1, 2, 3, 4):
        padded = F.pad(train.images[:100].float(), (shift, 0, shift, 0), mode="replicate").to(torch.uint8)
        copies = ImageSet(padded[:, :, :64, :64], train.labels[:100], train.classes)
        leaks = find_leaks(train, copies, device="cpu")
        assert (leaks["train_index"] == leaks["other_index"]).all()
        assert len(leaks) >= 95
