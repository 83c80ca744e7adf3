"""The benchmarks run on little data; only larger runs on an idle machine produce meaningful numbers."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest
import torch

from cnnlesson.anatomy import layer_table
from cnnlesson.data import Batches, shapes, take
from cnnlesson.models import AlexNet, resnet18
from cnnlesson.training import train_one_epoch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(name: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.thorough
def test_throughput_has_a_row_for_each_way_and_size_and_a_record(make_archive, tmp_path):
    sizes = ("--network", "resnet18", "--batch-size", 8, 16, "--images", 32, "--repeats", 2)
    where = ("--archive", make_archive(), "--out", tmp_path / "out")
    result = run("throughput.py", *where, *sizes, "--ways", "cnnlesson", "plain")
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "out/throughput.json").read_text())
    keys = [(row["way"], row["batch_size"], row["repeat"]) for row in found["measurements"]]
    assert sorted(keys) == sorted((w, b, r) for w in ("cnnlesson", "ceiling", "plain") for b in (8, 16) for r in (0, 1))
    assert all(row["rate"] > 0 for row in found["measurements"])
    assert found["about"]["torch"] == torch.__version__.split("+")[0]
    lines = (tmp_path / "out/throughput.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| resnet18, 8", "| resnet18, 16"]
    assert (tmp_path / "out/throughput.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (["--archive", "nowhere.zip"], "nowhere.zip does not exist"),
        (["--images", "1000"], "has 36 training images, fewer than the 1000 of --images: lower it"),
    ],
)
def test_bad_input_gets_one_line(make_archive, tmp_path, changes, line):
    result = run("throughput.py", "--archive", make_archive(), "--out", tmp_path / "out", *changes)
    assert result.returncode == 1
    assert line in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_first_use_is_timed_step_by_step(make_archive):
    result = run("first_use.py", "--archive", make_archive(), "--repeats", 1)
    assert result.returncode == 0, result.stderr
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == ["no cache yet", "from the cache"]
    assert "tiny_imagenet() 0.0" in result.stdout


def test_the_projection_counts_the_operations_of_the_layer_table():
    result = run("projection.py")
    assert result.returncode == 0, result.stderr
    work = layer_table(AlexNet(200, dropout=0.5), (3, 227, 227))["flop_m"]
    # One forward and two backward products, of two operations each; the images need no gradient.
    gigaflop = (6 * work["total"] - 2 * work["conv1"]) / 1e3
    assert f"alexnet: {gigaflop:.2f} GFLOP per image" in result.stdout


@pytest.mark.thorough
def test_the_forecast_is_compared_with_the_actual_time():
    result = run("search.py", "--model", "resnet18", "--images", 80, "--epochs", 1, "--repeats", 1)
    assert result.returncode == 0, result.stderr
    last_line = result.stdout.strip().splitlines()[-1]
    found = re.fullmatch(r"forecast (\S+) s, actual (\S+) s: ([+-]\d+)%", last_line)
    forecast, actual, percent = map(float, found.groups())
    assert forecast > 0
    assert percent == pytest.approx(100 * (forecast / actual - 1), abs=2)


@pytest.mark.serial
def test_batches_take_a_small_share_of_an_epoch():
    train_set = take(shapes(seed=0).train, 320, seed=0)
    torch.manual_seed(0)
    batches = Batches(train_set, batch_size=64, image_size=64, seed=0, augment=True)
    model = resnet18(num_classes=10).to(batches.device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, fused=True)
    one_batch = [next(iter(batches))] * len(batches)

    def seconds(some) -> float:
        start = time.perf_counter()
        train_one_epoch(model, some, optimizer)
        return time.perf_counter() - start

    seconds(one_batch)
    shares = [seconds(one_batch) / seconds(batches) for _ in range(5)]
    assert median(shares) > 0.85
