"""The exercise as a student starts it: python -m cnnlesson exercise ..."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from small_files import jpeg, write_zip

from cnnlesson.__main__ import main, parse
from cnnlesson.data import Batches, split, tiny_imagenet
from cnnlesson.data.batches import watch_batches
from cnnlesson.experiments import trial
from cnnlesson.models import resnet18
from cnnlesson.training import evaluate, train


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
    return list(table[["lr", "batch_size", "weight_decay"]].drop_duplicates().itertuples(index=False, name=None))


def test_the_grid_the_decays_at_its_best_point_and_the_report(run, tmp_path, capsys):
    assert run("--lr", "0.1", "0.001", "--batch-size", "8", "12", "--epochs", "2", "--decay-at-best", "0", "0.1") == 0
    table = results()
    assert len(table) == (4 + 1) * 2  # decay 0 is in the grid already
    assert table["epoch"].tolist() == [1, 2] * 5
    assert trials(table)[:4] == [(0.1, 8, 0), (0.1, 12, 0), (0.001, 8, 0), (0.001, 12, 0)]
    last = table[table["epoch"] == 2]
    best = last[last["weight_decay"] == 0]["val_accuracy"].max()
    assert trials(last)[4][2] == 0.1
    assert table.iloc[8]["lr"] in last[last["val_accuracy"] == best]["lr"].tolist()
    said = capsys.readouterr().out
    assert "24 training, 12 validation and 12 test images of 3 classes" in said
    assert "chance level 33.3%" in said
    assert "best point of resnet18: lr" in said
    assert "weight decay 0.1: training" in said
    assert "chosen: resnet18, validation accuracy" in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert "the report is out/report.html" in said
    assert "Not written yet." in page
    test_accuracy = said.partition("test accuracy ")[2].split()[0]
    assert test_accuracy in page
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["command"].startswith("python -m cnnlesson exercise --model resnet18")
    assert record["seeds"] == [0]


def test_the_students_own_words_are_in_the_report(run, tmp_path, capsys):
    (tmp_path / "words.md").write_text("Small steps **win**.", encoding="utf-8")
    assert run("--conclusions", "words.md") == 0
    assert "Small steps <strong>win</strong>." in (tmp_path / "out" / "report.html").read_text()
    assert run("--conclusions", "nothing.md") == 2
    assert "nothing.md" in capsys.readouterr().err


def test_the_chosen_networks_test_accuracy_is_that_of_its_weights(run, tmp_path, capsys):
    """Trained again by hand, from the same seed, it does as well on the test images."""
    assert run("--epochs", "2") == 0
    said = capsys.readouterr().out
    data = tiny_imagenet(tmp_path / "data", archive=tmp_path / "tiny-imagenet-3.zip")
    train_set, val_set = split(data.train, (0.66, 0.34), seed=0)
    torch.manual_seed(0)
    model = resnet18(3, small_images=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0, fused=True)
    batches = Batches(train_set, 8, 64, seed=0, device="cpu")
    list(train(model, batches, Batches(val_set, 12, 64, device="cpu"), optimizer, epochs=2))
    accuracy = evaluate(model, Batches(data.test, 12, 64, device="cpu")).accuracy
    assert f"test accuracy {accuracy:.1%}" in said


def test_each_epoch_is_kept_when_it_ends_and_a_stopped_run_goes_on(run, monkeypatch, capsys):
    assert run("--epochs", "3", "--out", "whole") == 0
    train = trial.train

    def stopped(*arguments, **more):
        for epoch in train(*arguments, **more):
            yield epoch
            if epoch.number == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trial, "train", stopped)
        assert run("--epochs", "3") == 130
    assert "what is finished is kept" in capsys.readouterr().err
    steps = []
    with watch_batches(lambda batches, number: steps.append(batches.seed) or True):
        assert run("--epochs", "3") == 0
    assert steps.count(0) == 3 + 1  # one epoch of three batches
    timing = ["seconds", "images_per_second"]
    pd.testing.assert_frame_equal(results().drop(columns=timing), results("whole").drop(columns=timing))


def test_finished_trials_are_not_run_again(run, capsys):
    assert run("--lr", "0.1", "0.01") == 0
    whole = results()
    assert run("--lr", "0.1", "0.01") == 0
    assert "2 of 2 trials have ended already" in capsys.readouterr().out
    pd.testing.assert_frame_equal(results(), whole)


def test_other_settings_in_the_same_folder_are_refused(run, capsys):
    assert run() == 0
    assert run("--epochs", "2") == 2
    assert "holds trials of other settings (epochs 1, now 2): name another file" in capsys.readouterr().err
    assert run("--images", "12") == 2
    assert "holds trials of other settings (images " in capsys.readouterr().err
    assert len(results()) == 1


def test_several_seeds_are_averaged(run, capsys):
    assert run("--seed", "0", "1") == 0
    table = results()
    assert table["seed"].tolist() == [0, 1]
    mean = table["val_accuracy"].mean()
    assert f"chosen: resnet18, validation accuracy {mean:.1%}" in capsys.readouterr().out


def test_both_networks_are_in_one_report(run, tmp_path, capsys):
    assert run("--model", "resnet18", "alexnet", "--images", "9", "--batch-size", "4") == 0
    assert results()["model"].tolist() == ["resnet18", "alexnet"]
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "image_size 227" in record["settings of alexnet"]
    assert "image_size 64" in record["settings of resnet18"]
    assert main(["status", "--storage", "out/alexnet.journal"]) == 0
    assert "1 point: 1 completed; no process runs it now" in capsys.readouterr().out


def test_a_forecast_and_what_fits_train_nothing(run, tmp_path, capsys):
    assert run("--fit", "1", "--lr", "0.1", "0.01") == 0
    said = capsys.readouterr().out
    assert "resnet18, a CPU with" in said
    assert "batch size 8: 2 trials of" in said
    assert "1 minutes are enough for 2 trials of" in said
    assert not (tmp_path / "out").exists()


def test_status_of_nothing_is_one_line(run, capsys):
    assert main(["status", "--storage", "nothing.journal"]) == 2
    assert capsys.readouterr().err == "error: nothing.journal holds no search: start it with run()\n"


def test_folders_of_classes_will_do_as_well(run, tmp_path, capsys):
    random = np.random.default_rng(0)
    files = {
        f"{part}/{name}/{number}.jpg": jpeg(random, size=32)
        for part in ("train", "test")
        for name in ("frog", "airplane")
        for number in range(10)
    }
    assert run("--data", str(write_zip(tmp_path / "small.zip", files))) == 0
    assert "13 training, 7 validation and 20 test images of 2 classes" in capsys.readouterr().out
    assert '"settings of resnet18": "model resnet18, image_size 32' in (tmp_path / "out" / "results.json").read_text()


def test_a_trial_that_diverges_is_kept_and_the_grid_goes_on(run, capsys):
    assert run("--lr", "1e30", "0.001", "--epochs", "3") == 0
    table = results()
    assert table[table["lr"] == 1e30]["diverged"].tolist()[-1]
    assert len(table[table["lr"] == 1e30]) < 3
    assert len(table[table["lr"] == 0.001]) == 3
    said = capsys.readouterr().out
    assert "diverged in epoch" in said
    assert "best point of resnet18: lr 0.001" in said


def test_where_everything_diverges_it_says_what_to_try(run, capsys):
    assert run("--lr", "1e30", "--epochs", "3", "--decay-at-best", "0.1") == 0
    assert "no trial was completed: try lower learning rates with --lr" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "missing.zip"], "missing.zip does not exist"),
        (["--lr", "0.1", "0.1"], "the grid's lr has a value twice"),
        (["--batch-size", "25"], "--batch-size 25 is larger than the 24 training images"),
        (["--val-fraction", "1.5"], "fractions must be positive and add up to 1"),
        (["--val-fraction", "0"], "fractions must be positive and add up to 1"),
        (["--images", "4"], "class 'goldfish' must have at least one image for each of the 2 parts"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--device", "cuda:99"], "device 'cuda:99' is not there"),
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
        (["--batch-size", "0"], "argument --batch-size: must be a finite number above 0, got 0"),
        (["--batch-size", "many"], "argument --batch-size: invalid int above 0 value: 'many'"),
        (["--lr", "-1"], "argument --lr: must be a finite number above 0, got -1"),
        (["--epochs", "0"], "argument --epochs: must be a finite number above 0"),
        (["--weight-decay", "-0.1"], "argument --weight-decay: must be a finite number that is not below 0"),
        (["--lr", "nan"], "argument --lr: must be a finite number above 0, got nan"),
        (["--model", "vgg"], "argument --model: invalid choice: 'vgg'"),
        (["--fit", "inf"], "argument --fit: must be a finite number above 0, got inf"),
        (["--lr", "inf"], "argument --lr: must be a finite number above 0, got inf"),
        (["--dropout", "-1"], "argument --dropout: must be a finite number from 0 to 1, got -1"),
        (["--image-size", "1000000"], "argument --image-size: must be a finite number from 1 to 1024, got 1000000"),
        (["--part", "9/8"], "argument --part: must be such as 3/8, the third of eight parts, got 9/8"),
        (["--part", "half"], "argument --part: must be such as 3/8, the third of eight parts, got half"),
        (["--gpus-per-trial", "0"], "argument --gpus-per-trial: must be a finite number above 0, got 0"),
    ],
)
def test_a_mistyped_option_is_named(run, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        run(*options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_out_of_memory_has_failed_in_one_line_and_the_grid_goes_on(run, monkeypatch, capsys):
    train = trial.train

    def fail(model, batches, *arguments, **more):
        if batches.batch_size == 12:
            raise torch.OutOfMemoryError("out of memory on cuda with a batch of 12 images: lower batch_size")
        yield from train(model, batches, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(trial, "train", fail)
        assert run("--batch-size", "12", "8") == 0
    assert results()["state"].tolist() == ["failed", "completed"]
    assert "failed: out of memory on cuda with a batch of 12 images: lower batch_size" in capsys.readouterr().out
    assert run("--batch-size", "12", "8", "--retry-failed") == 0
    assert results()["state"].tolist() == ["completed", "completed"]


def test_an_output_folder_that_cannot_be_made_is_one_line(run, tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    assert run("--out", "taken") == 2
    assert capsys.readouterr().err.endswith(
        "error: the folder taken cannot be created (File exists): name another one\n"
    )


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


def test_parts_train_their_share_and_the_run_without_part_writes_the_report(run, tmp_path, capsys):
    grid = ["--lr", "0.1", "0.01", "--batch-size", "8", "12", "--decay-at-best", "0.1"]
    for number in (1, 3):
        assert run(*grid, "--part", f"{number}/3") == 0
    said = capsys.readouterr().out
    assert "resnet18: 1 point missing\n  lr 0.01, batch size 8, weight decay 0\n" in said
    assert "no report yet: it needs the whole table" in said
    assert not (tmp_path / "out" / "report.html").exists()
    assert main(["status", "--storage", "out/resnet18.journal"]) == 0
    assert "4 points: 3 completed, 1 waiting; no process runs it now" in capsys.readouterr().out
    assert run(*grid) == 0
    assert "3 of 4 trials have ended already" in capsys.readouterr().out
    parts = results()
    assert run(*grid, "--out", "whole") == 0
    timing = ["seconds", "images_per_second"]
    pd.testing.assert_frame_equal(parts.drop(columns=timing), results("whole").drop(columns=timing))


@pytest.mark.skipif(sys.platform == "win32", reason="SLURM runs on Linux")
def test_the_example_for_slurm_trains_the_part_of_its_task(tmp_path):
    """The script's own command, with a python that prints what it is called with."""
    example = Path(__file__).parents[2] / "examples" / "search_on_slurm.sh"
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    slurm = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_CPUS_PER_TASK": "4"}
    environment = os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    output = subprocess.run(
        ["bash", example], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    module, name, *arguments = output.stdout.splitlines()
    assert (module, name) == ("-m", "cnnlesson")
    options = parse(arguments)
    assert (options.part, options.model, options.batch_size) == ((3, 8), ["alexnet", "resnet18"], [16, 32, 64])


def test_status_every_so_often_wants_a_finite_number(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["status", "--storage", "x.journal", "--every", "inf"])
    assert stopped.value.code == 2
    assert "argument --every: must be a finite number above 0, got inf" in capsys.readouterr().err


def test_from_a_shell():
    command = [sys.executable, "-m", "cnnlesson", "exercise", "--model", "resnet18", "--data", "nothing.zip"]
    command += ["--epochs", "1", "--lr", "0.1", "--batch-size", "8", "--weight-decay", "0"]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr == "error: nothing.zip does not exist: check the spelling, and the folder you are in\n"


def test_if_every_trial_fails_the_reasons_and_exit_code_1(run, monkeypatch, capsys):
    def fail(*arguments, **more):
        raise torch.OutOfMemoryError("out of memory on cuda with a batch of 12 images: lower batch_size")

    monkeypatch.setattr(trial, "train", fail)
    assert run("--batch-size", "12", "8") == 1
    said = capsys.readouterr()
    assert "no report: every trial failed" in said.err
    assert said.err.count("out of memory on cuda with a batch of 12 images: lower batch_size") == 1
    assert "the report is" not in said.out
