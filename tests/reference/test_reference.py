import subprocess
from importlib.metadata import version

import pandas as pd
import pytest
import torch

from cnnlesson import reference
from cnnlesson.data import ImageSet


@pytest.fixture
def table():
    return pd.DataFrame({"depth": [20, 56], "residual": [True, False], "test_error": [0.1, 1 / 3]})


def test_a_table_is_loaded_bit_for_bit_with_its_record(table, tmp_path):
    reference.save("depth", table, {"command": "python -m cnnlesson depth"}, tmp_path)
    loaded = reference.load("depth", tmp_path)
    pd.testing.assert_frame_equal(loaded.table, table, check_exact=True)
    assert loaded.made["command"] == "python -m cnnlesson depth"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth.csv", "depth.json"]


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_missing_file_is_named_with_the_available_results(table, tmp_path, suffix):
    reference.save("depth", table, {}, tmp_path)
    reference.save("gradients", table, {}, tmp_path)
    (tmp_path / f"depth.{suffix}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"depth\.{suffix} is missing.*gradients"):
        reference.load("depth", tmp_path)


def test_a_changed_table_is_refused(table, tmp_path):
    reference.save("depth", table, {}, tmp_path)
    path = tmp_path / "depth.csv"
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(ValueError, match=r"depth\.csv was changed after it was measured .* get both files again"):
        reference.load("depth", tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_record_without_a_digest_is_refused(table, tmp_path, text):
    reference.save("depth", table, {}, tmp_path)
    (tmp_path / "depth.json").write_text(text)
    with pytest.raises(ValueError, match=r"depth\.json is not a record of measured results"):
        reference.load("depth", tmp_path)


def test_the_circumstances_name_versions_and_cpu():
    found = reference.circumstances(torch.device("cpu"))
    assert found["torch"] == torch.__version__.split("+")[0]
    number = torch.get_num_threads()
    assert found["cpu"].endswith(f", {number} threads" if number > 1 else ", 1 thread")
    assert found["commit"]


def test_the_commit_of_another_project_that_contains_the_package_is_not_recorded(tmp_path, monkeypatch):
    site_packages = tmp_path / "site-packages"
    (site_packages / "cnnlesson" / "reference").mkdir(parents=True)
    git = ["git", "-c", "user.name=me", "-c", "user.email=me@example.org"]
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "Start"], cwd=tmp_path, check=True)
    monkeypatch.setattr(reference, "FOLDER", site_packages / "cnnlesson" / "reference")
    assert reference.circumstances(torch.device("cpu"))["commit"] == f"version {version('cnnlesson')}"


def test_the_digest_of_images_follows_pixels_and_labels(image_set):
    digest = reference.images_digest(image_set)
    assert digest == reference.images_digest(image_set[torch.arange(30)])
    brighter = image_set.images.clone()
    brighter[0, 0, 0, 0] += 1
    assert digest != reference.images_digest(ImageSet(brighter, image_set.labels, image_set.classes))
    labels = image_set.labels.clone()
    labels[0] = 1
    assert digest != reference.images_digest(ImageSet(image_set.images, labels, image_set.classes))


@pytest.mark.parametrize("name", sorted(path.stem for path in reference.FOLDER.glob("*.csv")))
def test_the_shipped_results_have_a_complete_record(name):
    made = reference.load(name).made
    assert made["command"].startswith("python -m cnnlesson ")
    assert len(made["images_sha256"]) == 64
    assert made["seeds"] and made["data"]
    for record in made.get("networks", {"": made}).values():
        assert len(record["commit"]) == 40  # and no -dirty
        assert record["torch"] and record["cpu"] and record["date"]
