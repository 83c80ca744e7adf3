"""What every notebook starts with."""

import pytest
import torch

from cnnlesson import notebook
from cnnlesson.data import named_images, shapes


def test_the_device_is_described(capsys):
    device = notebook.say_device()
    printed = capsys.readouterr().out
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        assert "No GPU is available." in printed and "Change runtime type, T4 GPU" in printed
    else:
        assert "A GPU is available:" in printed


def test_the_form_field_names_the_images(tmp_path, make_archive, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert torch.equal(notebook.load_images("shapes").train.images, shapes(seed=0).train.images)
    assert notebook.load_images(str(make_archive())).train.classes == ("goldfish", "toad", "lifeboat")


def test_an_environment_variable_overrides_the_field(tmp_path, make_archive, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CNNLESSON_DATA", str(make_archive()))
    assert len(notebook.load_images("shapes").train.classes) == 3


def test_tiny_lessons_have_few_images_of_all_classes(monkeypatch):
    monkeypatch.setattr(notebook, "TINY", True)
    data = notebook.load_images("tiny-imagenet")
    assert (len(data.train), len(data.test)) == (200, 100)
    assert torch.bincount(data.train.labels).tolist() == [20] * 10


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.zip does not exist"):
        named_images(str(tmp_path / "nowhere.zip"), tmp_path, seed=0)
