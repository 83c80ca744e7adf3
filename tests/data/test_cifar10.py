import hashlib
import pickle

import numpy as np
import pytest
import torch
from torchvision import datasets

from cnnlesson.data import cifar10


@pytest.fixture
def official_files(tmp_path, monkeypatch):
    """The official layout with 20 images per file; torchvision is told their MD5."""
    random = np.random.default_rng(0)
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()

    def write(name: str, content: dict) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(name: str) -> list[str]:
        images = random.integers(0, 256, (20, 3072), dtype=np.uint8)
        return [name, write(name, {"data": images, "labels": random.integers(0, 10, 20).tolist()})]

    monkeypatch.setattr(datasets.CIFAR10, "train_list", [batch(f"data_batch_{k}") for k in range(1, 6)])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [batch("test_batch")])
    names = [f"class {k}" for k in range(10)]
    meta = {"filename": "batches.meta", "key": "label_names", "md5": write("batches.meta", {"label_names": names})}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return tmp_path


def test_images_labels_and_classes_come_from_the_official_files(official_files):
    data = cifar10(official_files)
    assert data.train.images.shape == (100, 3, 32, 32)
    assert data.test.images.shape == (20, 3, 32, 32)
    assert data.train.classes[3] == "class 3"
    content = pickle.loads((official_files / datasets.CIFAR10.base_folder / "test_batch").read_bytes())
    assert torch.equal(data.test.images.flatten(1), torch.from_numpy(content["data"]))  # red, green, blue; row by row
    assert data.test.labels.tolist() == content["labels"]


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(OSError, match=r"could not be downloaded \(.*refused.*\): .* in a browser and save it in"):
        cifar10(tmp_path)
