"""The atlas with two tiny slabs on images like CIFAR-10's."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from cnnlesson import __main__ as shell
from cnnlesson import reference
from cnnlesson.data import Batches, ImageSet
from cnnlesson.data.image_set import TrainTest
from cnnlesson.experiments import atlas
from cnnlesson.models import SmallAlexNet, cifar_resnet
from cnnlesson.noise import right_images
from cnnlesson.points import combinations
from cnnlesson.training import evaluate, train

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar(number: int, seed: int) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % 10
    images = torch.randint(0, 100, (number, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return ImageSet(images + 15 * labels[:, None, None, None].to(torch.uint8), labels, NAMES)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """`python -m cnnlesson atlas` with few images and trials; returns the exit code."""
    grid = {"lr": [0.01, 1e6], "batch_size": [8], "weight_decay": [0.0], "seed": [0]}
    slabs = {
        "rates": atlas.Slab(grid, epochs=2),
        "gelu": atlas.Slab(grid | {"lr": [0.01]}, ("alexnet",), "cosine", "gelu", epochs=1),
    }
    for name, value in {"SLABS": slabs, "NUM_TRAIN": 40, "NUM_VAL": 20, "NUM_TEST": 21}.items():
        monkeypatch.setattr(atlas, name, value)
    monkeypatch.setattr(atlas, "named_images", lambda *_, **__: TrainTest(cifar(140, 0), cifar(60, 1)))
    monkeypatch.chdir(tmp_path)
    return lambda *options: shell.main(["atlas", "--data", "cifar10", "--device", "cpu", "--out", "out", *options])


def test_every_trial_is_in_the_table_and_its_test_result_is_in_a_file_of_its_own(run, tmp_path, capsys):
    assert run("--part", "1/2") == 0
    assert "missing: run the other parts, then this command again" in capsys.readouterr().out
    assert not (tmp_path / "out" / "atlas.csv").exists()
    assert run() == 0
    table, made = reference.load("atlas", tmp_path / "out")
    test, _ = reference.load("atlas_test", tmp_path / "out")
    assert "test" not in " ".join(table.columns)
    last = table.groupby(["slab", "network", "lr"], as_index=False).tail(1)
    assert last[["slab", "network", "lr"]].to_numpy().tolist() == test[["slab", "network", "lr"]].to_numpy().tolist()
    assert len(test) == 5
    assert set(table.loc[table["slab"] == "gelu", ["schedule", "activation"]].to_numpy()[0]) == {"cosine", "gelu"}
    # The bits are those of the last epoch, and only its.
    completed = last[last["state"] == "completed"]
    for bits, accuracy in zip(completed["val_right"], completed["val_accuracy"], strict=True):
        assert right_images(bits, 20).mean() == pytest.approx(accuracy)
    assert table["val_right"].notna().sum() == len(last)
    assert (table["steps"] == 5 * table["epoch"]).all()
    # A trial that diverged is in both tables, without a test result.
    is_lost = last["state"].to_numpy() == "diverged"
    assert is_lost.any()
    assert test["test_right"].isna().tolist() == is_lost.tolist()
    assert made["images_sha256"]
    assert "40 training, 20 validation and 21 test images" in made["data"]

    capsys.readouterr()
    assert run() == 0  # nothing is trained again
    said = capsys.readouterr().out
    assert said.count("2 of 2 trials have ended already") == 2
    assert said.count("1 of 1 trials have ended already") == 1
    pd.testing.assert_frame_equal(reference.load("atlas", tmp_path / "out").table, table)


def test_the_test_result_is_that_of_the_network_after_its_last_epoch(run, tmp_path):
    """Trained again by hand."""
    assert run() == 0
    test = reference.load("atlas_test", tmp_path / "out").table
    train_set, val_set, test_set = atlas.load_images("cifar10", "data")
    for network, build in (("alexnet", SmallAlexNet), ("resnet", lambda classes: cifar_resnet(8, classes))):
        torch.manual_seed(0)
        model = build(5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
        batches = Batches(train_set, 8, 32, seed=0, device="cpu")
        list(train(model, batches, Batches(val_set, 20, 32, device="cpu"), optimizer, epochs=2))
        right = evaluate(model, Batches(test_set, 21, 32, device="cpu")).right
        row = test[(test["network"] == network) & (test["slab"] == "rates") & (test["lr"] == 0.01)]
        assert row["test_right"].item() == right


def test_the_images_are_of_five_classes_and_disjoint():
    images = cifar(100, 0)
    five = atlas.only_classes(images, atlas.CLASSES)
    assert len(five) == 50
    assert [five.classes[label] for label in five.labels[:5]] == ["airplane", "automobile", "frog", "horse", "ship"]
    with pytest.raises(ValueError, match="the images have no class airplane: use CIFAR-10"):
        atlas.only_classes(ImageSet(images.images, images.labels % 2, ("a", "b")), atlas.CLASSES)


def test_too_few_images_are_refused_in_one_line(run, monkeypatch, capsys):
    monkeypatch.setattr(atlas, "NUM_TEST", 1000)
    assert run() == 2
    assert "error: the atlas needs 60 training and 1,000 test images of airplane" in capsys.readouterr().err


def test_the_whole_atlas_has_each_point_once():
    slabs = atlas.SLABS
    keys = [
        (network, slab.schedule, slab.activation, slab.epochs, *point.values())
        for slab in slabs.values()
        for network in slab.networks
        for point in combinations(slab.grid)
    ]
    assert len(keys) == len(set(keys)) == 860
    for batch_size in (128, 256):
        num_steps = slabs[f"steps-{batch_size}"].epochs * math.ceil(4000 / batch_size)
        assert abs(num_steps - 4 * math.ceil(4000 / 64)) <= 4  # as many as four epochs of batches of 64
    assert np.allclose(np.diff(np.log10(atlas.RATES)), 0.5, atol=0.03)
