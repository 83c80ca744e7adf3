"""The exercise as a student starts it: python -m cnnlesson exercise ..."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import jpeg, write_zip

from cnnlesson import exercise
from cnnlesson.__main__ import main
from cnnlesson.data import tiny_imagenet

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def run(make_archive, tmp_path, monkeypatch):
    """Run the exercise on 24 training images for an epoch; further options come last, and win."""
    monkeypatch.chdir(tmp_path)
    archive = make_archive()

    def run(*options: str) -> int:
        words = f"exercise --model resnet18 --data {archive} --epochs 1 --lr 0.01 --batch-size 8 --weight-decay 0"
        return main([*words.split(), "--val-fraction", "0.34", "--device", "cpu", "--out", "out", *options])

    return run


def results(folder: str = "out") -> pd.DataFrame:
    return pd.read_csv(f"{folder}/results.csv")


def trials(table: pd.DataFrame) -> list[tuple]:
    return list(table[["lr", "batch_size", "weight_decay"]].itertuples(index=False, name=None))


def test_the_grid_the_decays_at_its_best_point_and_the_report(run, tmp_path, capsys):
    assert run("--lr", "0.1", "0.001", "--batch-size", "8", "12", "--epochs", "2", "--decay-at-best", "0", "0.1") == 0
    table = results()
    assert len(table) == (4 + 1) * 2  # decay 0 is in the grid already
    assert table["epoch"].tolist() == [1, 2] * 5
    assert trials(table[table["epoch"] == 1])[:4] == [(0.1, 8, 0), (0.1, 12, 0), (0.001, 8, 0), (0.001, 12, 0)]
    last = table[table["epoch"] == 2]
    best = last[last["weight_decay"] == 0].sort_values("val_accuracy", kind="stable", ascending=False).iloc[0]
    assert trials(last)[4][2] == 0.1
    assert table.iloc[8]["lr"] in last[last["val_accuracy"] == best["val_accuracy"]]["lr"].tolist()
    for name in ("resnet18-grid-decay-0.png", "resnet18-weight-decay.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(PNG)
    said = capsys.readouterr().out
    assert "24 training and 12 validation images of 3 classes" in said
    assert "guessing gives 33.3%" in said
    assert "best point: lr" in said
    assert "weight decay 0.1: training" in said
    assert "results and figures are in out/" in said


def test_each_epoch_is_on_disk_when_it_ends(run, monkeypatch):
    rows = []
    train = exercise.train

    def watched(*arguments):
        for epoch in train(*arguments):
            yield epoch
            rows.append(len(results()))

    monkeypatch.setattr(exercise, "train", watched)
    assert run("--epochs", "3") == 0
    assert rows == [1, 2, 3]


def test_finished_trials_are_not_run_again_and_an_unfinished_one_starts_over(run, monkeypatch, capsys):
    assert run("--lr", "0.1", "0.01", "--epochs", "2") == 0
    whole = results()
    whole.iloc[:3].to_csv("out/results.csv", index=False)  # as if the runtime had died in the second trial
    seen = []
    run_trial = exercise.run_trial
    monkeypatch.setattr(exercise, "run_trial", lambda *arguments: seen.append(arguments[1]) or run_trial(*arguments))
    assert run("--lr", "0.1", "0.01", "--epochs", "2") == 0
    assert [point.lr for point in seen] == [0.01]
    assert "1 of 2 trials are in out/results.csv already" in capsys.readouterr().out
    timing = ["seconds", "images_per_second"]
    pd.testing.assert_frame_equal(results().drop(columns=timing), whole.drop(columns=timing))


def test_another_setting_is_another_trial(run):
    assert run() == 0
    assert run("--epochs", "2") == 0
    assert run("--seed", "1") == 0
    assert run("--augment") == 0
    assert len(results()) == 1 + 2 + 1 + 1


def test_folders_of_classes_will_do_as_well(run, tmp_path, capsys):
    random = np.random.default_rng(0)
    files = {
        f"{part}/{name}/{number}.jpg": jpeg(random, size=32)
        for part in ("train", "test")
        for name in ("frog", "airplane")
        for number in range(10)
    }
    assert run("--data", str(write_zip(tmp_path / "small.zip", files))) == 0
    assert "13 training and 7 validation images of 2 classes" in capsys.readouterr().out
    assert results()["image_size"].tolist() == [32]


def test_both_models_share_a_file(run):
    assert run() == 0
    assert run("--model", "alexnet", "--images", "9", "--batch-size", "4") == 0
    assert results()["model"].tolist() == ["resnet18", "alexnet"]
    assert results()["image_size"].tolist() == [64, 227]


def test_a_trial_that_diverges_is_kept_and_the_grid_goes_on(run, capsys):
    assert run("--lr", "1e30", "0.001", "--epochs", "3") == 0
    table = results()
    assert table[table["lr"] == 1e30]["diverged"].tolist()[-1]
    assert len(table[table["lr"] == 1e30]) < 3
    assert len(table[table["lr"] == 0.001]) == 3
    said = capsys.readouterr().out
    assert "diverged in epoch" in said
    assert "best point: lr 0.001" in said


def test_where_everything_diverges_it_says_what_to_try(run, capsys):
    assert run("--lr", "1e30", "--epochs", "3", "--decay-at-best", "0.1") == 0
    assert "every trial diverged: try lower learning rates" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "missing.zip"], "missing.zip does not exist"),
        (["--batch-size", "25"], "--batch-size 25 is larger than the 24 training images"),
        (["--val-fraction", "1.5"], "fractions must be positive and add up to 1"),
        (["--val-fraction", "0"], "fractions must be positive and add up to 1"),
        (["--images", "4"], "class 'goldfish' has"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--device", "cuda:99"], "device 'cuda:99' is not there"),
        (["--model", "alexnet", "--image-size", "64"], "AlexNet takes images of shape (N, 3, 227, 227)"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, capsys, options, message):
    assert run(*options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "0"], "argument --batch-size: must be above 0, got 0"),
        (["--batch-size", "many"], "argument --batch-size: invalid int above 0 value: 'many'"),
        (["--lr", "-1"], "argument --lr: must be above 0"),
        (["--epochs", "0"], "argument --epochs: must be above 0"),
        (["--weight-decay", "-0.1"], "argument --weight-decay: must not be below 0"),
        (["--lr", "nan"], "argument --lr: must be above 0, got nan"),
        (["--model", "vgg"], "argument --model: invalid choice: 'vgg'"),
    ],
)
def test_a_mistyped_option_is_named(run, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        run(*options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_out_of_memory_is_one_line_and_keeps_finished_trials(run, monkeypatch, capsys):
    def fail(*arguments):
        raise torch.OutOfMemoryError("out of memory on cuda with a batch of 8 images: lower batch_size")

    assert run("--lr", "0.1") == 0
    monkeypatch.setattr(exercise, "train", fail)
    assert run("--lr", "0.1", "0.01") == 2
    assert "error: out of memory on cuda with a batch of 8 images" in capsys.readouterr().err
    assert len(results()) == 1


def test_ctrl_c_keeps_finished_trials(run, monkeypatch, capsys):
    def stop(*arguments):
        raise KeyboardInterrupt

    assert run() == 0
    monkeypatch.setattr(exercise, "train", stop)
    assert run("--lr", "0.5") == 130
    assert "what was finished is kept" in capsys.readouterr().err
    assert len(results()) == 1


def test_a_file_of_other_columns_is_left_alone(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/results.csv").write_text("name,grade\nAda,10\n")
    assert run() == 2
    assert "is not a results file of this exercise" in capsys.readouterr().err
    assert (tmp_path / "out/results.csv").read_text() == "name,grade\nAda,10\n"


def test_an_output_folder_that_cannot_be_made_is_one_line(run, tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    assert run("--out", "taken") == 2
    assert capsys.readouterr().err.endswith("error: the folder taken cannot be made (File exists): name another one\n")


@pytest.mark.parametrize("cut", [10, 300, 1])
def test_a_results_file_that_was_cut_is_taken_up(run, tmp_path, cut):
    """A runtime can die while a line is written."""
    assert run("--lr", "0.1", "0.01") == 0
    whole = (tmp_path / "out/results.csv").read_text()
    kept = whole[:-cut] if cut < 300 else whole[:20]
    (tmp_path / "out/results.csv").write_text(kept)
    assert run("--lr", "0.1", "0.01") == 0
    assert results()["lr"].tolist() == [0.1, 0.01]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val/val_annotations.txt": None}, "has no val/val_annotations.txt"),
        ({"train/n02/images/n02_3.JPEG": b"no image"}, "train/n02/images/n02_3.JPEG cannot be decoded as an image"),
        ({"wnids.txt": b"n01\nn02\nn03\nn04\n"}, "class n04 (n04) has no images in train/"),
    ],
)
def test_a_broken_archive_is_one_line_and_exit_code_2(run, make_archive, tmp_path, capsys, changes, message):
    assert run("--data", str(make_archive(changes)), "--root", str(tmp_path / "other")) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_a_failed_download_is_one_line_and_exit_code_2(run, tmp_path, monkeypatch, capsys):
    source = sys.modules[tiny_imagenet.__module__]
    monkeypatch.setattr(source, "MIRRORS", ("http://127.0.0.1:9/tiny-imagenet-200.zip",))
    monkeypatch.setattr(sys.modules["cnnlesson.data.download"], "PAUSE", 0.001)
    assert run("--data", "tiny-imagenet", "--root", str(tmp_path / "other")) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: tiny-imagenet-200.zip could not be downloaded.")


def test_from_a_shell():
    command = [sys.executable, "-m", "cnnlesson", "exercise", "--model", "resnet18", "--data", "nothing.zip"]
    command += ["--epochs", "1", "--lr", "0.1", "--batch-size", "8", "--weight-decay", "0"]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr == "error: nothing.zip does not exist: check the spelling, and the folder you are in\n"
