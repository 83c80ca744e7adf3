"""The depth experiment, and python -m cnnlesson depth ... as a student types it."""

import itertools
import json

import numpy as np
import pytest
import torch
from small_files import jpeg, write_zip

from cnnlesson import reference
from cnnlesson.__main__ import main
from cnnlesson.data import Batches, ImageSet, TrainTest, image_folder, split
from cnnlesson.experiments import depth
from cnnlesson.experiments.depth import Network, networks, train_network
from cnnlesson.models.resnet import BasicBlock
from cnnlesson.training import evaluate

PNG = b"\x89PNG\r\n\x1a\n"
RECIPE = {"epochs": 2, "batch_size": 16, "lr": 0.1, "weight_decay": 1e-4}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Sixty images of 32×32 pixels in two classes: 40 for training and 20 for testing."""
    random = np.random.default_rng(0)
    files = {
        f"{part}/{name}/{index}.jpg": jpeg(random, size=32)
        for part, count in (("train", 20), ("test", 10))
        for name in ("frog", "airplane")
        for index in range(count)
    }
    return write_zip(tmp_path_factory.mktemp("depth") / "small.zip", files, top="small/")


@pytest.fixture
def run(archive, tmp_path, monkeypatch):
    """Train a plain and a residual network of 8 layers for two epochs; further options override these."""
    monkeypatch.chdir(tmp_path)

    def run(*options: str) -> int:
        words = f"depth --data {archive} --depths 8 --epochs 2 --batch-size 16 --lr 0.1 --weight-decay 0 --seeds 0"
        return main([*words.split(), "--device", "cpu", "--out", "out", *options])

    return run


def test_every_depth_and_seed_has_a_plain_and_a_residual_network():
    names = [str(network) for network in networks(depths=(56, 20), seeds=(0, 1))]
    assert names[:4] == ["plain-20-seed-0", "residual-20-seed-0", "plain-20-seed-1", "residual-20-seed-1"]
    assert len(names) == 8


def test_a_wrong_depth_is_reported_before_anything_is_trained():
    with pytest.raises(ValueError, match=r"depth must be 6n \+ 2.* got 21"):
        networks(depths=(20, 21), seeds=(0,))


def test_images_of_another_size_are_refused(image_set):
    with pytest.raises(ValueError, match="expects images of 32×32 pixels, such as CIFAR-10's, got 16×16"):
        model = Network(8, residual=True, seed=0).new_model(3)
        next(train_network(model, TrainTest(image_set, image_set), **RECIPE, seed=0))


@pytest.mark.parametrize("residual", [False, True])
def test_an_epoch_has_the_accuracy_on_the_test_images_and_the_gradients_before_it(archive, residual):
    data = image_folder(archive)
    test_batches = Batches(data.test, 20, 32, device="cpu")
    model = Network(8, residual, seed=0).new_model(2)
    epochs, gradients = [], []
    for epoch, norms in train_network(model, data, **RECIPE, seed=0):
        assert epoch.val_accuracy == pytest.approx(evaluate(model, test_batches).accuracy)
        epochs.append(epoch)
        gradients.append(norms)
    assert [epoch.number for epoch in epochs] == [1, 2]
    assert epochs[0].learning_rate == pytest.approx(0.1 / 25)  # the start of torch's OneCycleLR
    assert list(gradients[0])[-1] == "fc"
    assert gradients[0] != gradients[1]


@pytest.mark.parametrize("residual", [False, True])
def test_the_networks_learn_and_runs_are_bitwise_identical(image_set, residual):
    large = image_set.images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)  # 16×16 to 32×32
    enlarged = ImageSet(large, image_set.labels, image_set.classes)
    data = TrainTest(*split(enlarged, (0.6, 0.4), seed=0))
    recipe = {"epochs": 20, "batch_size": 6, "lr": 0.05, "weight_decay": 1e-4}
    network, num_classes = Network(8, residual, seed=0), len(image_set.classes)
    first, second = (list(train_network(network.new_model(num_classes), data, **recipe, seed=0)) for _ in range(2))
    assert [epoch.val_loss for epoch, _ in first] == [epoch.val_loss for epoch, _ in second]
    (start, _), (end, _) = first[0], first[-1]
    assert end.val_loss < start.val_loss
    assert end.val_accuracy >= 0.9  # each class has its own colour


def test_the_command_writes_tables_with_records_networks_and_figures(run, archive, tmp_path, capsys):
    assert run("--name", "small images") == 0
    out = tmp_path / "out"
    table, made = reference.load("depth", out)
    assert table[["depth", "residual", "seed", "epoch"]].values.tolist() == [
        [8, False, 0, 1],
        [8, False, 0, 2],
        [8, True, 0, 1],
        [8, True, 0, 2],
    ]
    assert table["train_error"].between(0, 1).all() and table["test_error"].between(0, 1).all()
    assert made["command"].startswith(f"python -m cnnlesson depth --data {archive} --depths 8")
    assert made["data"] == "small images: 40 training and 20 test images"
    assert made["images_sha256"] == reference.images_digest(*image_folder(archive))
    assert made["seeds"] == [0]
    assert set(made["networks"]) == {"plain-8-seed-0", "residual-8-seed-0"}
    assert {"commit", "torch", "cpu", "date"} <= set(made["networks"]["plain-8-seed-0"])

    gradients = reference.load("gradients", out).table
    assert len(gradients) == 2 * 2 * 8  # networks, epochs, layers
    assert reference.load("residual_sizes", out).table["block"].tolist() == ["layer1.0", "layer2.0", "layer3.0"]
    for name in ("curves", "depth", "gradients", "residual_sizes"):
        assert (out / f"{name}.png").read_bytes().startswith(PNG)
    output = capsys.readouterr().out
    assert "residual-8-seed-0, epoch 2 of 2: training error" in output
    assert "residual, test error as published (He et al., 2015): 20 layers 8.75%" in output
    assert not list(out.glob("*.unfinished"))


def test_a_finished_network_is_not_trained_again(run, monkeypatch, capsys):
    assert run("--kinds", "plain") == 0
    trained = []
    original = depth.train_network

    def watched(model, *rest, **more):
        trained.append(type(model.layer1[0]))
        return original(model, *rest, **more)

    monkeypatch.setattr(depth, "train_network", watched)
    assert run() == 0
    assert trained == [BasicBlock]  # only the residual network
    assert "out/plain-8-seed-0.pt exists: plain-8-seed-0 is not trained again" in capsys.readouterr().out


def test_an_interrupted_run_leaves_no_partial_file(run, monkeypatch, tmp_path):
    original = depth.train_network

    def interrupted(*arguments, **more):
        yield next(original(*arguments, **more))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(depth, "train_network", interrupted)
        assert run() == 130
    assert list((tmp_path / "out").iterdir()) == []
    assert run() == 0


def test_a_network_with_other_settings_is_refused(run, capsys):
    assert run("--kinds", "plain") == 0
    assert run("--epochs", "1", "--lr", "0.2") == 2
    assert "out/plain-8-seed-0.pt was trained with other settings (epochs, lr)" in capsys.readouterr().err


def test_a_damaged_file_is_named(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plain-8-seed-0.pt").write_bytes(b"half a file")
    assert run() == 2
    assert "plain-8-seed-0.pt is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("content", [torch.zeros(3), {"weights": {}}, [1]], ids=["tensor", "dict", "list"])
def test_a_file_of_another_kind_is_named_by_both_commands(run, archive, tmp_path, capsys, content):
    (tmp_path / "out").mkdir()
    torch.save(content, tmp_path / "out" / "plain-8-seed-0.pt")
    for command in (run, lambda: deepen(archive)):
        assert command() == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("error: out/plain-8-seed-0.pt is damaged or no network of this experiment")
        assert line.endswith("delete it and train that network again, or choose another folder with --out")


def test_a_network_with_other_classes_is_not_deepened(run, tmp_path, capsys):
    assert run("--kinds", "plain") == 0
    random = np.random.default_rng(0)
    places = itertools.product(("train", "test"), "abc", range(6))
    files = {f"{part}/{name}/{index}.jpg": jpeg(random, size=32) for part, name, index in places}
    other = write_zip(tmp_path / "other.zip", files, top="other/")
    assert deepen(other) == 2
    assert "weights in out/plain-8-seed-0.pt do not fit plain-8-seed-0 with 3 classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--depths", "8", "21"], "depth must be 6n + 2"),
        (["--depths", "20", "8", "20"], "depth 20 is listed twice: list each depth once"),
        (["--seeds", "0", "0"], "seed 0 is listed twice: list each seed once"),
        (["--data", "missing.zip"], "missing.zip does not exist"),
        (["--device", "cuda:9"], "device 'cuda:9' is not there"),
    ],
)
def test_bad_input_gets_one_line(run, options, message, capsys):
    assert run(*options) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1] and lines[-1].startswith("error: ")


def deepen(archive, *options: str) -> int:
    words = f"deepen --data {archive} --depth 8 --to 20 --seed 0 --epochs 1 --lr 0.001 --device cpu --out out"
    return main([*words.split(), *options])


def test_the_deepened_network_has_the_outputs_of_the_shallow_one(run, archive, capsys):
    assert run() == 0
    capsys.readouterr()
    assert deepen(archive) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[0] == "plain-8-seed-0 with 2 identity blocks at the end of each stage has 20 layers"
    assert float(output[1].split()[5]) < 1e-4
    assert output[2].partition(":")[2] == output[3].partition(":")[2]  # the errors before and after
    assert output[4].startswith("20 layers, after epoch 1 at learning rate 0.001: training error")


def test_only_a_trained_network_can_be_deepened_and_only_by_whole_blocks(run, archive, capsys):
    assert deepen(archive) == 2
    assert "plain-8-seed-0.pt does not exist: train that network first" in capsys.readouterr().err
    assert run("--kinds", "plain") == 0
    assert deepen(archive, "--to", "16") == 2
    assert "8 layers can be deepened to 14, 20, 26, ... layers, got 16" in capsys.readouterr().err


def test_the_record_is_plain_json(run, tmp_path):
    assert run() == 0
    assert json.loads((tmp_path / "out" / "depth.json").read_text())["weight_decay"] == 0
