import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small_files import jpeg, write_zip
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from cnnlesson.data import image_folder, named_images


@pytest.fixture
def files() -> dict[str, bytes]:
    random = np.random.default_rng(0)
    return {
        f"{part}/{name}/{number}.jpg": jpeg(random, size=32, mode="L" if number == 2 else "RGB")
        for part, count in (("train", 5), ("test", 3))
        for name in ("frog", "airplane")
        for number in range(count)
    }


def write_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def test_a_folder_is_read_as_torchvisions_image_folder_reads_it(tmp_path, files):
    data = image_folder(write_folder(tmp_path / "images", files))
    assert data.train.classes == data.test.classes == ("airplane", "frog")
    for part, image_set in (("train", data.train), ("test", data.test)):
        folder = ImageFolder(tmp_path / "images" / part)
        assert image_set.labels.tolist() == folder.targets
        for number, (image, _) in enumerate(folder):
            assert torch.equal(image_set.images[number], pil_to_tensor(image))


@pytest.mark.parametrize("top", ["", "cifar10-jpeg/"])
def test_a_zip_is_read_like_a_folder(tmp_path, files, top):
    from_zip = image_folder(write_zip(tmp_path / "images.zip", {**files, "readme.txt": b"hello"}, top=top))
    from_folder = image_folder(write_folder(tmp_path / "images", files))
    assert torch.equal(from_zip.train.images, from_folder.train.images)
    assert torch.equal(from_zip.test.images, from_folder.test.images)
    assert torch.equal(from_zip.test.labels, from_folder.test.labels)


@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        ("test/", r"has no images in test/airplane/"),
        ("train/frog/", r"has no images in train/frog/"),
        ("t", r"has no images in train/<class>/"),
    ],
)
def test_a_class_without_images_is_named(tmp_path, files, dropped, message):
    kept = {name: content for name, content in files.items() if not name.startswith(dropped)}
    with pytest.raises(ValueError, match=message):
        image_folder(write_zip(tmp_path / "images.zip", {**kept, "readme.txt": b"hello"}, top=""))


def test_an_undecodable_image_is_named(tmp_path, files):
    with pytest.raises(ValueError, match=r"train/frog/1.jpg cannot be decoded as an image"):
        image_folder(write_folder(tmp_path / "images", {**files, "train/frog/1.jpg": b"no image"}))


def test_a_path_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing.zip does not exist"):
        image_folder(tmp_path / "missing.zip")


def test_an_archive_with_a_password_is_an_error(tmp_path, files):
    archive = write_zip(tmp_path / "secret.zip", files)
    content = archive.read_bytes()
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the first file's two headers; bit 0: encrypted
        place = content.index(header) + flags
        content = content[:place] + bytes([content[place] | 1]) + content[place + 1 :]
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"secret\.zip is protected by a password: unpack it"):
        image_folder(archive)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_can_never_be_read_to_its_end_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="is neither a folder nor a file: name a zip archive or a folder"):
            named_images(path, tmp_path, seed=0)
