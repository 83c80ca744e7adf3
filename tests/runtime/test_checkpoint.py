"""A training that stops for any reason resumes from its checkpoint as if it had not stopped."""

import dataclasses
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from cnnlesson.data import Batches, ImageSet
from cnnlesson.runtime import device as runtime_device
from cnnlesson.runtime.checkpoint import Checkpoint
from cnnlesson.training import Epoch, train

TIMING = {"seconds": 0, "images_per_second": 0}


sgd = functools.partial(torch.optim.SGD, momentum=0.9, weight_decay=1e-4, fused=True)


def one_cycle(optimizer: torch.optim.Optimizer, total_steps: int = 6 * 4) -> lr_scheduler.LRScheduler:
    return lr_scheduler.OneCycleLR(optimizer, max_lr=optimizer.param_groups[0]["lr"], total_steps=total_steps)


class Training:
    """A small network with everything that has a state: momentum, batch norm, dropout, a schedule, augmentation."""

    def __init__(
        self,
        image_set: ImageSet,
        lr: float = 0.05,
        width: int = 8,
        make_optimizer: Callable = sgd,
        make_scheduler: Callable = one_cycle,
        **other_batches,
    ):
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Dropout(0.5), nn.Linear(4 * width, 3),
        )  # fmt: skip
        options = {"batch_size": 8, "image_size": 16, "seed": 3, "augment": True}
        self.batches = Batches(image_set, **options | other_batches, device="cpu")
        self.val_batches = Batches(image_set, batch_size=len(image_set), image_size=16, device="cpu")
        self.optimizer = make_optimizer(self.model.parameters(), lr=lr)
        self.scheduler = make_scheduler(self.optimizer)

    def run(self, checkpoint: Path | None = None, epochs: int = 6) -> Iterator[Epoch]:
        return train(
            self.model, self.batches, self.val_batches, self.optimizer, epochs, self.scheduler, checkpoint=checkpoint
        )


def without_timing(history: list[Epoch]) -> list[Epoch]:
    return [dataclasses.replace(epoch, **TIMING) for epoch in history]


def test_an_interrupted_training_ends_with_bitwise_identical_figures_and_weights(image_set, tmp_path):
    whole = Training(image_set)
    history = list(whole.run())

    path = tmp_path / "folder" / "training.pt"
    for stop_after in (1, 3, 4):  # it stops three times, each time in the middle of the next epoch
        stopped = Training(image_set)
        for epoch in stopped.run(path):
            if epoch.number == stop_after:
                break
        torch.rand(stop_after)  # the next training starts with other random numbers
    resumed = Training(image_set)
    again = list(resumed.run(path))

    assert [epoch.number for epoch in again] == [1, 2, 3, 4, 5, 6]
    assert without_timing(again) == without_timing(history)
    for ours, theirs in zip(resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert list(tmp_path.joinpath("folder").iterdir()) == [path]


def test_a_finished_training_is_restored_without_another_step(image_set, tmp_path, monkeypatch):
    path = tmp_path / "training.pt"
    first = Training(image_set)
    history = list(first.run(path))
    second = Training(image_set)
    monkeypatch.delattr(Batches, "__iter__")
    assert list(second.run(path)) == history
    assert torch.equal(second.model[0].weight, first.model[0].weight)


def test_more_epochs_continue_where_the_checkpoint_ends(image_set, tmp_path):
    path = tmp_path / "training.pt"
    list(Training(image_set).run(path, epochs=2))
    history = list(Training(image_set).run(path, epochs=4))
    assert [(epoch.number, epoch.epochs) for epoch in history] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_diverged_training_stays_diverged(image_set, tmp_path):
    path = tmp_path / "training.pt"
    history = list(Training(image_set, lr=1e30).run(path))
    assert history[-1].diverged
    assert without_timing(list(Training(image_set, lr=1e30).run(path)))[-1].number == len(history)


def constant(optimizer: torch.optim.Optimizer) -> None:
    """No scheduler."""


def cosine(optimizer: torch.optim.Optimizer, steps: int = 24) -> lr_scheduler.LRScheduler:
    return lr_scheduler.CosineAnnealingLR(optimizer, steps)


def warmup_and_cosine(optimizer: torch.optim.Optimizer, steps: int) -> lr_scheduler.LRScheduler:
    parts = [lr_scheduler.LinearLR(optimizer, total_iters=3), cosine(optimizer, steps)]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[3])


def chained(optimizer: torch.optim.Optimizer, steps: int) -> lr_scheduler.LRScheduler:
    return lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(optimizer, 0.99), cosine(optimizer, steps)])


def steps_at(optimizer: torch.optim.Optimizer, steps: int) -> lr_scheduler.LRScheduler:
    return lr_scheduler.MultiStepLR(optimizer, milestones=[5, steps])


REFUSED = "the checkpoint {} is of another training ({}): name another file, or delete it to start from scratch"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"lr": 0.01}, "optimizer.lr was 0.05, now it is 0.01"),
        ({"make_optimizer": functools.partial(sgd, momentum=0.5)}, "optimizer.momentum was 0.9, now it is 0.5"),
        ({"make_optimizer": functools.partial(sgd, fused=None)}, "optimizer.fused was True, now it is None"),
        ({"make_optimizer": torch.optim.Adam}, "optimizer was SGD, now it is Adam"),
        ({"make_scheduler": cosine}, "scheduler was None, now it is CosineAnnealingLR"),
        ({"batch_size": 5}, "batches.batch_size was 8, now it is 5"),
        ({"image_size": 24}, "batches.image_size was 16, now it is 24"),
        ({"seed": 4}, "batches.seed was 3, now it is 4"),
        ({"augment": False}, "batches.augment was True, now it is False"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(image_set, tmp_path, change, difference):
    path = tmp_path / "training.pt"
    list(Training(image_set, make_scheduler=constant).run(path, epochs=1))
    with pytest.raises(ValueError) as refused:
        list(Training(image_set, **{"make_scheduler": constant} | change).run(path))
    assert str(refused.value) == REFUSED.format(path, difference)


@pytest.mark.parametrize(
    ("make", "difference"),
    [
        (one_cycle, "scheduler.total_steps was 24, now it is 48"),
        (cosine, "scheduler.T_max was 24, now it is 48"),
        (warmup_and_cosine, "scheduler._schedulers.1.T_max was 24, now it is 48"),
        (chained, "scheduler._schedulers.1.T_max was 24, now it is 48"),
        (steps_at, "scheduler.milestones.24 was 1, now it is None"),
    ],
)
def test_a_schedule_resumes_but_one_of_another_length_is_refused(image_set, tmp_path, make, difference):
    path = tmp_path / "training.pt"

    def run(steps: int, epochs: int) -> list[Epoch]:
        return list(Training(image_set, make_scheduler=lambda optimizer: make(optimizer, steps)).run(path, epochs))

    run(steps=24, epochs=2)
    assert [epoch.number for epoch in run(steps=24, epochs=3)] == [1, 2, 3]
    with pytest.raises(ValueError) as refused:
        run(steps=48, epochs=4)
    assert str(refused.value) == REFUSED.format(path, difference)


def test_a_schedule_with_another_part_is_refused(image_set, tmp_path):
    def with_constant_part(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        parts = [lr_scheduler.LinearLR(optimizer, total_iters=3), lr_scheduler.ExponentialLR(optimizer, 1)]
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=[3])

    path = tmp_path / "training.pt"
    list(Training(image_set, make_scheduler=functools.partial(warmup_and_cosine, steps=24)).run(path, epochs=1))
    with pytest.raises(ValueError, match=r"\(scheduler\._schedulers\.1\.T_max was 24, now it is None\)"):
        list(Training(image_set, make_scheduler=with_constant_part).run(path))


def test_a_constant_learning_rate_resumes_for_more_epochs_as_in_one_training(image_set, tmp_path):
    def run(path, epochs: int) -> list[Epoch]:
        return without_timing(list(Training(image_set, make_scheduler=lambda optimizer: None).run(path, epochs)))

    run(tmp_path / "training.pt", epochs=2)
    assert run(tmp_path / "training.pt", epochs=4) == run(None, epochs=4)


def test_a_checkpoint_of_other_images_or_labels_is_refused(image_set, tmp_path):
    path = tmp_path / "training.pt"
    list(Training(image_set).run(path, epochs=1))
    images, labels = image_set.images.clone(), image_set.labels.clone()
    images[7, 0, 3, 3] += 1
    labels[7] = 2
    changes = [
        (image_set[torch.arange(29)], "batches.num_images was 30, now it is 29"),
        (ImageSet(images, image_set.labels, image_set.classes), "batches.digest was "),
        (ImageSet(image_set.images, labels, image_set.classes), "batches.digest was "),
    ]
    for other, message in changes:
        with pytest.raises(ValueError) as refused:
            list(Training(other).run(path))
        assert message in str(refused.value)


class Unsized:
    """Batches without a length."""

    def __init__(self, batches: Iterable):
        self.batches = batches

    def __iter__(self) -> Iterator:
        return iter(self.batches)


def test_other_iterables_must_have_the_same_length_if_they_have_one(image_set, tmp_path):
    batches = list(Training(image_set).batches)

    def run(some_batches: Iterable, path: Path, epochs: int) -> list[Epoch]:
        training = Training(image_set)
        training.batches = some_batches
        return list(training.run(path, epochs))

    run(batches[:3], tmp_path / "list.pt", epochs=1)
    with pytest.raises(ValueError, match=r"\(batches\.length was 3, now it is 4\)"):
        run(batches, tmp_path / "list.pt", epochs=2)
    run(Unsized(batches[:3]), tmp_path / "unsized.pt", epochs=1)
    assert len(run(Unsized(batches), tmp_path / "unsized.pt", epochs=2)) == 2


def test_a_checkpoint_of_another_network_is_refused(image_set, tmp_path):
    path = tmp_path / "training.pt"
    list(Training(image_set).run(path, epochs=1))
    with pytest.raises(ValueError) as refused:
        list(Training(image_set, width=4).run(path))
    assert str(refused.value) == REFUSED.format(path, "model.0.weight was (8, 3, 3, 3), now it is (4, 3, 3, 3)")


def trained_in(dtype: torch.dtype, image_set: ImageSet, monkeypatch: pytest.MonkeyPatch) -> tuple:
    """A training on a device that computes in `dtype`, and its gradient scaler."""
    monkeypatch.setattr(runtime_device, "training_dtype", lambda device: dtype)
    training = Training(image_set)
    return training, runtime_device.gradient_scaler(training.model, training.optimizer)


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float16), (torch.float16, torch.bfloat16)])
def test_a_checkpoint_resumes_on_a_device_that_computes_in_another_type(image_set, tmp_path, monkeypatch, dtypes):
    for dtype, epochs in zip(dtypes, (1, 2), strict=True):
        training, scaler = trained_in(dtype, image_set, monkeypatch)
        assert scaler.is_enabled() == (dtype is torch.float16)
        assert len(list(training.run(tmp_path / "training.pt", epochs))) == epochs


def test_the_scale_of_gradients_is_restored(image_set, tmp_path, monkeypatch):
    training, scaler = trained_in(torch.float16, image_set, monkeypatch)
    scaler.load_state_dict(scaler.state_dict() | {"scale": 1024.0})
    list(training.run(tmp_path / "training.pt", epochs=1))
    assert scaler.get_scale() == 1024
    resumed, scaler = trained_in(torch.float16, image_set, monkeypatch)
    assert scaler.get_scale() != 1024
    list(resumed.run(tmp_path / "training.pt", epochs=2))
    assert scaler.get_scale() == 1024


@pytest.mark.parametrize("num_gpus", [0, 1, 2, 3])
def test_each_gpu_that_is_there_resumes_with_its_random_numbers(tmp_path, monkeypatch, num_gpus):
    restored = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [torch.tensor([1]), torch.tensor([2])])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restored.extend)
    model = nn.Linear(2, 2)
    checkpoint = Checkpoint(tmp_path / "training.pt", model, sgd(model.parameters(), lr=0.1), None, [])
    checkpoint.save([])
    assert restored == []
    checkpoint.load()
    assert restored == [torch.tensor([1]), torch.tensor([2])][:num_gpus]


def test_a_checkpoint_without_a_scaler_resumes_and_one_without_settings_is_refused(image_set, tmp_path):
    path = tmp_path / "training.pt"
    list(Training(image_set).run(path, epochs=1))
    content = torch.load(path)
    del content["scaler"]
    torch.save(content, path)
    assert len(list(Training(image_set).run(path, epochs=2))) == 2
    del content["settings"]
    torch.save(content, path)
    with pytest.raises(ValueError, match="is damaged or of an older version: delete it to start from scratch"):
        list(Training(image_set).run(path))


def test_a_checkpoint_with_more_epochs_than_the_training_is_refused(image_set, tmp_path):
    path = tmp_path / "training.pt"
    list(Training(image_set).run(path, epochs=2))
    with pytest.raises(ValueError, match="has 2 epochs already, more than 1: name another file"):
        list(Training(image_set).run(path, epochs=1))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_one_line(image_set, tmp_path, content):
    path = tmp_path / "training.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or of an older version: delete it to start from scratch"):
        list(Training(image_set).run(path))


def test_a_full_disk_is_one_line_and_keeps_the_state_of_the_previous_epoch(image_set, tmp_path, monkeypatch):
    path = tmp_path / "training.pt"
    training = Training(image_set).run(path)
    next(training)
    before = path.read_bytes()

    def write_half(content, file):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(OSError, match=r"could not be written .*No space left on device.*: free some space on that"):
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
state = Checkpoint(sys.argv[1], model, torch.optim.SGD(model.parameters(), lr=0.1), None, [])
torch.save = write_half
state.save([])
"""


def test_unfinished_files_of_a_killed_process_are_removed(image_set, tmp_path):
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
state = Checkpoint(sys.argv[1], model, torch.optim.SGD(model.parameters(), lr=0.1), None, [])
try:
    state.save([])
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="this system cannot limit the size of files")
def test_a_failed_write_leaves_nothing_behind(tmp_path):
    path = tmp_path / "training.pt"
    process = subprocess.run([sys.executable, "-c", SCRIPT, path], capture_output=True, text=True)
    assert "could not be written" in process.stdout, process.stderr
    assert process.stdout.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_of_a_torch_with_fewer_options_of_the_optimizer_resumes(image_set, tmp_path):
    path = tmp_path / "training.pt"
    list(Training(image_set).run(path, epochs=1))
    content = torch.load(path)
    assert content["settings"].pop("optimizer.differentiable") is False
    torch.save(content, path)
    assert len(list(Training(image_set).run(path, epochs=2))) == 2
    content["settings"]["parameter groups"] = 2
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"\(parameter groups was 2, now it is 1\)"):
        list(Training(image_set).run(path, epochs=2))


def test_a_checkpoint_of_a_torch_whose_schedules_have_other_private_attributes_resumes(image_set, tmp_path):
    def run(epochs: int) -> list[Epoch]:
        return list(Training(image_set, make_scheduler=lambda one: lr_scheduler.StepLR(one, 100)).run(path, epochs))

    path = tmp_path / "training.pt"
    run(epochs=1)
    content = torch.load(path)
    private = [name for name in content["settings"] if name.startswith("scheduler._")]
    assert private
    content["settings"] = {name: value for name, value in content["settings"].items() if name not in private}
    torch.save(content, path)
    assert len(run(epochs=2)) == 2
    content = torch.load(path)
    del content["settings"]["scheduler.step_size"]
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"\(scheduler.step_size was None, now it is 100\)"):
        run(epochs=3)
