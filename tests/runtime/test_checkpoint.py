"""A training that stops, by whatever means, goes on from its checkpoint as if it had not stopped."""

import dataclasses
import os
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cnnlesson.data import Batches
from cnnlesson.training import Epoch, train

TIMING = {"seconds": 0, "images_per_second": 0}


class Training:
    """A small network with all that has a state: momentum, batch norm, dropout, a schedule, random augmentation."""

    def __init__(self, image_set, lr=0.05, width=8):
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Dropout(0.5), nn.Linear(4 * width, 3),
        )  # fmt: skip
        self.batches = Batches(image_set, batch_size=8, image_size=16, seed=3, augment=True, device="cpu")
        self.val_batches = Batches(image_set, batch_size=30, image_size=16, device="cpu")
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4, fused=True)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, max_lr=lr, total_steps=6 * 4)

    def run(self, checkpoint=None, epochs=6):
        return train(
            self.model, self.batches, self.val_batches, self.optimizer, epochs, self.scheduler, checkpoint=checkpoint
        )


def without_timing(history: list[Epoch]) -> list[Epoch]:
    return [dataclasses.replace(epoch, **TIMING) for epoch in history]


def test_an_interrupted_training_ends_with_the_same_figures_and_weights_to_the_bit(image_set, tmp_path):
    whole = Training(image_set)
    history = list(whole.run())

    path = tmp_path / "folder" / "training.pt"
    for stop_after in (1, 3, 4):  # it stops three times, each time in the middle of the next epoch
        stopped = Training(image_set)
        for epoch in stopped.run(path):
            if epoch.number == stop_after:
                break
        torch.rand(stop_after)  # whoever comes next has other random numbers
    resumed = Training(image_set)
    again = list(resumed.run(path))

    assert [epoch.number for epoch in again] == [1, 2, 3, 4, 5, 6]
    assert without_timing(again) == without_timing(history)
    for ours, theirs in zip(resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert list(tmp_path.joinpath("folder").iterdir()) == [path]


def test_a_finished_training_is_not_repeated_and_gives_its_weights(image_set, tmp_path):
    path = tmp_path / "training.pt"
    first = Training(image_set)
    history = list(first.run(path))
    second = Training(image_set)
    second.batches = second.val_batches = SimpleNamespace()  # nobody can iterate over it
    assert list(second.run(path)) == history
    assert torch.equal(second.model[0].weight, first.model[0].weight)


def test_more_epochs_go_on_where_the_checkpoint_ends(image_set, tmp_path):
    path = tmp_path / "training.pt"
    list(Training(image_set).run(path, epochs=2))
    history = list(Training(image_set).run(path, epochs=4))
    assert [(epoch.number, epoch.epochs) for epoch in history] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_diverged_training_stays_diverged(image_set, tmp_path):
    path = tmp_path / "training.pt"
    history = list(Training(image_set, lr=1e30).run(path))
    assert history[-1].diverged
    assert without_timing(list(Training(image_set, lr=1e30).run(path)))[-1].number == len(history)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.01}, "is of another training (there lr is 0.002, here 0.0004): name another file"),
        ({"width": 4}, "is of another network or optimizer: name another file, or delete it"),
    ],
)
def test_another_trainings_checkpoint_is_refused(image_set, tmp_path, change, message):
    path = tmp_path / "training.pt"
    list(Training(image_set).run(path, epochs=1))
    with pytest.raises(ValueError) as refused:
        list(Training(image_set, **change).run(path))
    assert message in str(refused.value)


def test_a_checkpoint_with_more_epochs_than_asked_for_is_refused(image_set, tmp_path):
    path = tmp_path / "training.pt"
    list(Training(image_set).run(path, epochs=2))
    with pytest.raises(ValueError, match="has 2 epochs already, more than 1: name another file"):
        list(Training(image_set).run(path, epochs=1))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_one_line(image_set, tmp_path, content):
    path = tmp_path / "training.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged: delete it, and the training starts anew"):
        list(Training(image_set).run(path))


def test_a_full_disk_is_one_line_and_keeps_the_epoch_before(image_set, tmp_path, monkeypatch):
    path = tmp_path / "training.pt"
    training = Training(image_set).run(path)
    next(training)
    before = path.read_bytes()

    def write_half(content, file):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(OSError, match=r"could not be written .*No space left on device.*: free some room on that disk"):
        next(training)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


DIES = """
import os, pathlib, signal, sys, torch
from torch import nn
from cnnlesson.runtime.checkpoint import Checkpoint
def write_half(content, file):
    pathlib.Path(file).write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
model = nn.Linear(2, 2)
state = Checkpoint(sys.argv[1], model, torch.optim.SGD(model.parameters(), lr=0.1), None, None, [])
torch.save = write_half
state.save([])
"""


def test_what_a_process_left_that_was_killed_while_it_wrote_is_removed(image_set, tmp_path):
    path = tmp_path / "training.pt"
    another = tmp_path / "another.pt.1.unfinished"
    another.touch()
    killed = subprocess.run([sys.executable, "-c", DIES, path])
    assert killed.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 2
    list(Training(image_set).run(path, epochs=1))
    assert sorted(tmp_path.iterdir()) == [another, path]


SCRIPT = """
import signal, resource, sys, torch
from torch import nn
from cnnlesson.runtime.checkpoint import Checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
model = nn.Linear(1000, 1000)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
state = Checkpoint(sys.argv[1], model, optimizer, None, torch.amp.GradScaler("cpu"), [])
try:
    state.save([])
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="this system cannot limit the size of files")
def test_a_write_that_the_system_refuses_leaves_nothing(tmp_path):
    path = tmp_path / "training.pt"
    process = subprocess.run([sys.executable, "-c", SCRIPT, path], capture_output=True, text=True)
    assert "could not be written" in process.stdout, process.stderr
    assert process.stdout.count("\n") == 1
    assert os.listdir(tmp_path) == []
