"""The example that trains one network on several GPUs, in two processes on the CPU.

torchrun starts this file, which runs the example with other images and a smaller network.
"""

import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import cnnlesson.data
import cnnlesson.models
import cnnlesson.training
from cnnlesson.data import Batches, ImageSet, split
from cnnlesson.data.image_set import TrainTest
from cnnlesson.runtime import device as runtime_device
from cnnlesson.training import Score, evaluate, train_one_epoch

EXAMPLE = Path(__file__).parents[1] / "examples" / "train_on_several_gpus.py"


def images(number: int) -> ImageSet:
    """Images of 16×16 in three classes, each with a colour of its own."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(number) % 3
    images = torch.randint(0, 60, (number, 3, 16, 16), generator=generator, dtype=torch.uint8)
    images[torch.arange(number), labels] += 60
    return ImageSet(images, labels, ("red", "green", "blue"))


def plain(num_classes: int) -> nn.Module:
    """A network without batch norm and dropout: its answer to an image does not depend on the rest of the batch."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, num_classes)
    )


def with_batch_norm_and_dropout(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.3), plain(num_classes)[1:])


def killed_in_epoch(last: int, rank: int = 1):
    """An `evaluate` that kills process `rank` when it is called for the `last` time."""
    calls = []

    def evaluate_or_die(model: nn.Module, batches: Batches) -> Score:
        calls.append(model)
        if len(calls) == last and int(os.environ["RANK"]) == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        return evaluate(model, batches)

    return evaluate_or_die


def run_example(network: str, killed: str = "") -> None:
    """What each process does."""
    torch.set_num_threads(1)
    runtime_device.training_dtype = lambda device: torch.float32  # processes add up in another order: see rounding
    cnnlesson.data.shapes = lambda seed: TrainTest(images(250), images(15))
    cnnlesson.models.resnet18 = globals()[network]
    if killed:
        cnnlesson.training.evaluate = killed_in_epoch(3)
    names = runpy.run_path(str(EXAMPLE))
    figures = {"loss": names["loss"], "accuracy": names["accuracy"]}
    torch.save({"figures": figures, "state": names["model"].state_dict()}, f"process{os.environ['RANK']}.pt")


if __name__ == "__main__":
    run_example(*sys.argv[1:])
    sys.exit()


def torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, __file__, *arguments],
        cwd=folder,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def losses_by_epoch(process: subprocess.CompletedProcess) -> dict[int, float]:
    """The validation losses that were printed."""
    printed = [line for line in process.stdout.splitlines() if not line.startswith("[Gloo]")]  # torch 2.10 prints this
    lines = re.findall(r"epoch (\d+): validation loss (\S+), accuracy", "\n".join(printed))
    assert len(lines) == len(printed), process.stdout  # one process prints, one line for each epoch
    return {int(number): float(loss) for number, loss in lines}


def load_processes(folder: Path) -> list[dict]:
    """The figures and weights of both processes, which must be identical."""
    first, second = (torch.load(folder / f"process{rank}.pt") for rank in range(2))
    assert first["figures"] == second["figures"]
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name
    return first


def test_two_processes_take_the_steps_of_one_even_if_one_is_killed(tmp_path, monkeypatch):
    killed = torchrun(tmp_path, "plain", "killed")
    assert killed.returncode != 0
    assert list(losses_by_epoch(killed)) == [1, 2], killed.stderr
    resumed = torchrun(tmp_path, "plain")
    assert list(losses_by_epoch(resumed)) == [3, 4, 5], resumed.stderr
    ours = load_processes(tmp_path)

    monkeypatch.setattr(runtime_device, "training_dtype", lambda device: torch.float32)
    torch.manual_seed(0)
    model = plain(num_classes=10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    train_set, val_set = split(images(250), (0.9, 0.1), seed=0)
    for epoch in range(5):
        order = torch.randperm(225, generator=torch.Generator().manual_seed(epoch))
        train_one_epoch(model, Batches(train_set[order[:224]], 64, image_size=64, device="cpu"), optimizer)
    torch.testing.assert_close(ours["state"], dict(model.state_dict()))
    score = evaluate(model, Batches(val_set, 25, image_size=64, device="cpu"))
    assert ours["figures"] == pytest.approx({"loss": score.loss, "accuracy": score.accuracy}, rel=1e-4)


def test_processes_stay_identical_with_batch_norm_and_dropout_and_learn(tmp_path):
    process = torchrun(tmp_path, "with_batch_norm_and_dropout")
    losses = losses_by_epoch(process)
    assert list(losses) == [1, 2, 3, 4, 5], process.stderr
    assert losses[5] < losses[1] / 2
    load_processes(tmp_path)


def test_the_example_without_torchrun_says_how_to_start_it():
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    process = subprocess.run([sys.executable, EXAMPLE], env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 1
    assert process.stderr == "this script runs in several processes: start it with torchrun, as its first lines show\n"
