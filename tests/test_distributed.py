"""One network in several processes: the same steps as in one. Started by torchrun, this file is what they run."""

import math
import os
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import cnnlesson.data
import cnnlesson.models
from cnnlesson import training
from cnnlesson.data import Batches, ImageSet, split
from cnnlesson.data.batches import watch_batches
from cnnlesson.data.image_set import TrainTest
from cnnlesson.distributed import data_parallel, join_processes
from cnnlesson.runtime import device as runtime_device
from cnnlesson.training import evaluate, train

pytestmark = pytest.mark.alone
EXAMPLE = Path(__file__).parents[1] / "examples" / "train_on_several_gpus.py"


def images(number: int) -> ImageSet:
    """Images of 16×16 in three classes, each with a colour of its own."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(number) % 3
    images = torch.randint(0, 60, (number, 3, 16, 16), generator=generator, dtype=torch.uint8)
    images[torch.arange(number), labels] += 60
    return ImageSet(images, labels, ("red", "green", "blue"))


def network(num_classes: int) -> nn.Module:
    """A network that treats each image alike whatever the others are: without batch norm and dropout."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, num_classes)
    )


def uneven(part: tuple[int, int] = (0, 1), parallel=lambda model, batches: model) -> dict:
    """Train where no batch can be halved: 7 images a batch, at last 5, and 4 a batch and at last 3 for validation."""
    torch.manual_seed(part[0])
    train_batches = Batches(images(33), 7, image_size=16, seed=0, augment=True, device="cpu", part=part)
    val_batches = Batches(images(15), 4, image_size=16, device="cpu", part=part)
    model = parallel(network(num_classes=3), train_batches)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=3 * len(train_batches))
    history = list(train(model, train_batches, val_batches, optimizer, 3, scheduler))
    return {"figures": figures(history), "num_images": evaluate(model, val_batches).num_images} | state(model)


def figures(history: list[training.Epoch]) -> list[tuple[float, ...]]:
    return [(epoch.train_loss, epoch.train_accuracy, epoch.val_loss, epoch.val_accuracy) for epoch in history]


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name.removeprefix("module."): value for name, value in model.state_dict().items()}


def with_batch_norm_and_dropout(part: tuple[int, int], epochs: int, checkpoint: str | None) -> dict:
    torch.manual_seed(part[0])
    batches = Batches(images(30), 8, image_size=16, seed=0, augment=True, device="cpu", part=part)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.3), network(3)[1:])
    model = data_parallel(model, batches)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    history = list(train(model, batches, batches, optimizer, epochs, checkpoint=checkpoint))
    return {"figures": figures(history)} | state(model)


def refusal(part: tuple[int, int]) -> str:
    with pytest.raises(ValueError) as refused:
        data_parallel(network(3), Batches(images(30), 8, image_size=16, device="cpu"))
    return str(refused.value)


def work(part: tuple[int, int]) -> dict:
    """What one of the processes does."""
    found = {"uneven": uneven(part, data_parallel), "refusal": refusal(part)}
    runtime_device.training_dtype = lambda device: torch.float16
    found["float16"] = uneven(part, data_parallel)
    runtime_device.training_dtype = lambda device: torch.float32
    found["uninterrupted"] = with_batch_norm_and_dropout(part, 4, None)
    with_batch_norm_and_dropout(part, 2, "interrupted.pt")
    found["interrupted"] = with_batch_norm_and_dropout(part, 4, "interrupted.pt")
    return found


def main() -> None:
    torch.set_num_threads(1)
    runtime_device.training_dtype = lambda device: torch.float32  # a sum over processes has another order of terms
    if sys.argv[1] == "work":
        part = join_processes()
        torch.save(work(part), f"work{part[0]}.pt")
        torch.distributed.destroy_process_group()
        return
    cnnlesson.data.shapes = lambda seed: TrainTest(images(750), images(15))
    cnnlesson.models.resnet18 = network
    rank = int(os.environ["RANK"])

    def die_in_the_third_epoch(batches: Batches, number: int) -> bool:
        if sys.argv[1] == "die" and rank == 1 and batches.seed is not None and (batches.epoch, number) == (3, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    with watch_batches(die_in_the_third_epoch):
        names = runpy.run_path(str(EXAMPLE))
    torch.save({"figures": figures([names["epoch"]])} | state(names["model"]), f"example{rank}.pt")


if __name__ == "__main__":
    main()
    sys.exit()


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    """What each of two processes has found, started as torchrun starts them."""
    folder = tmp_path_factory.mktemp("work")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", __file__, "work"],
            cwd=folder,
            env=os.environ | address | {"RANK": str(rank), "LOCAL_RANK": str(rank), "CUDA_VISIBLE_DEVICES": ""},
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"work{rank}.pt") for rank in range(2)]


def same_to_the_bit(one: dict, other: dict) -> bool:
    """Whether both trainings gave the same figures and weights."""
    return one["figures"] == other["figures"] and all(
        torch.equal(one[name], other[name]) for name in one if isinstance(one[name], torch.Tensor)
    )


@pytest.mark.parametrize("case", ["uneven", "float16", "uninterrupted"])
def test_all_processes_have_the_same_figures_and_weights_to_the_bit(found, case):
    assert same_to_the_bit(found[0][case], found[1][case])
    losses = [epoch[0] for epoch in found[0][case]["figures"]]
    assert math.isfinite(losses[-1]) and losses[-1] < losses[0]  # and they have learned something


def test_two_processes_make_the_steps_of_one_where_batches_cannot_be_halved(found, monkeypatch):
    monkeypatch.setattr(runtime_device, "training_dtype", lambda device: torch.float32)
    torch.testing.assert_close(found[0]["uneven"], uneven())


def test_a_training_in_two_processes_goes_on_to_the_bit(found):
    """With dropout, which has random numbers of its own in each process, and batch norm."""
    for ours in found:
        assert same_to_the_bit(ours["interrupted"], ours["uninterrupted"])


def test_batches_that_are_not_cut_into_parts_are_refused(found):
    expected = "the training batches are for part (0, 1), but this is process {} of 2: give them part=join_processes()"
    assert [ours["refusal"] for ours in found] == [expected.format(0), expected.format(1)]


def torchrun(folder: Path, argument: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(__file__, argument),
        ],
        cwd=folder,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_example_goes_on_after_a_process_was_killed_and_ends_as_one_process_would(tmp_path, monkeypatch):
    """The very script, on other images and with a smaller network: batches of 64 images, at last 35."""
    killed = torchrun(tmp_path, "die")
    assert killed.returncode != 0
    assert [line.split()[0] for line in killed.stdout.splitlines()] == ["1", "2"], killed.stderr
    resumed = torchrun(tmp_path, "live")
    assert [line.split()[0] for line in resumed.stdout.splitlines()] == ["1", "2", "3", "4", "5"], resumed.stderr
    ours = [torch.load(tmp_path / f"example{rank}.pt") for rank in range(2)]
    assert same_to_the_bit(*ours)

    monkeypatch.setattr(runtime_device, "training_dtype", lambda device: torch.float32)
    torch.manual_seed(0)
    train_set, val_set = split(images(750), (0.9, 0.1), seed=0)
    assert len(train_set) % 64 == 35
    train_batches = Batches(train_set, batch_size=64, image_size=64, seed=0, augment=True, device="cpu")
    val_batches = Batches(val_set, batch_size=64, image_size=64, device="cpu")
    model = network(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    history = list(train(model, train_batches, val_batches, optimizer, epochs=5))
    torch.testing.assert_close(ours[0], {"figures": figures(history[-1:])} | state(model))

    alone = network(num_classes=10)  # the file can be gone on from in one process
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    list(train(alone, train_batches, val_batches, optimizer, 5, checkpoint=tmp_path / "results" / "several_gpus.pt"))
    torch.testing.assert_close(state(alone), state(model))


def test_a_script_that_torchrun_has_not_started_is_told_so(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(RuntimeError, match="start it with torchrun --standalone --nproc-per-node 2"):
        join_processes()


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RuntimeError, match=r"more processes than GPUs on this machine \(2\): .*--nproc-per-node 2"):
        join_processes()
