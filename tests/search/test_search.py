"""The grid search as a student uses it: each point ends once, and nothing that is finished is lost."""

import functools
import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
import torch
from small_run import GRID, run, small_images
from torch import nn

from cnnlesson.data import Batches
from cnnlesson.data.batches import watch_batches
from cnnlesson.search import GridSearch, status
from cnnlesson.training import train

POINTS = [(0.1, 8), (0.1, 15), (0.01, 8), (0.01, 15), (0.001, 8), (0.001, 15)]
ONE = {"lr": [0.1], "batch_size": [8], "weight_decay": [0]}


@pytest.fixture
def storage(tmp_path):
    return tmp_path / "results" / "grid.journal"


def states(results: pd.DataFrame) -> list[str]:
    return results.groupby(["lr", "batch_size", "weight_decay"], sort=False)["state"].last().tolist()


def ends(storage) -> list[str]:
    """The ends of trials in a journal, in its order."""
    records = map(json.loads, storage.read_text().splitlines())
    return [record["end"] for record in records if "end" in record]


def test_every_point_is_trained_once_in_the_order_of_the_grid(storage):
    results = GridSearch(run, GRID, storage).run()
    assert list(results[["lr", "batch_size"]].drop_duplicates().itertuples(index=False, name=None)) == POINTS
    assert states(results) == ["completed"] * 6
    alone = list(run(0.01, 15, 0.0005, checkpoint=None))
    rows = results[(results["lr"] == 0.01) & (results["batch_size"] == 15)]
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        assert rows[name].tolist() == [getattr(epoch, name) for epoch in alone]
    assert rows["epoch"].tolist() == [1, 2, 3]
    assert ends(storage) == ["completed"] * 6


def test_finished_points_are_never_run_twice(storage, capsys):
    results = GridSearch(run, GRID, storage).run()
    capsys.readouterr()
    again = GridSearch(None, GRID, storage).run()  # there is nothing that could be called
    pd.testing.assert_frame_equal(again, results)
    assert "6 of 6 trials have ended already and are not run again" in capsys.readouterr().out


def test_a_stopped_trial_goes_on_after_its_last_epoch_and_ends_with_the_same_figures(storage, tmp_path):
    whole = GridSearch(run, GRID, tmp_path / "whole.journal").run()

    def stopped(lr, batch_size, weight_decay, checkpoint):
        for epoch in run(lr, batch_size, weight_decay, checkpoint):
            if (lr, batch_size, epoch.number) == (0.1, 15, 3):
                raise KeyboardInterrupt
            yield epoch

    with pytest.raises(KeyboardInterrupt):
        GridSearch(stopped, GRID, storage).run()
    assert status(storage).startswith("6 points: 1 completed, 1 interrupted, 4 waiting; no process runs it now")

    passes = []
    with watch_batches(lambda batches, number: passes.append(number == 0 and batches.seed is not None) or True):
        points_left = GridSearch(run, GRID | {"lr": [0.1]}, storage).run()
    assert sum(passes) == 0  # the three epochs of the second trial were all in its checkpoint
    assert states(points_left) == ["completed", "completed"]
    pd.testing.assert_frame_equal(GridSearch(run, GRID, storage).run(), whole)


def test_a_run_without_a_checkpoint_starts_its_trial_again(storage):
    def plain(lr, batch_size, weight_decay):
        yield from run(lr, batch_size, weight_decay, checkpoint=None)

    results = GridSearch(plain, GRID, storage).run()
    assert states(results) == ["completed"] * 6
    assert not (storage.parent / "grid.checkpoints").exists()


def test_a_trial_that_raises_has_failed_and_the_grid_goes_on(storage, capsys):
    def broken(lr, **others):
        if lr == 0.01:
            raise NameError("name 'momentum' is not defined")
        yield from run(lr, **others)

    broken.__signature__ = None
    results = GridSearch(functools.partial(broken, checkpoint=None), GRID, storage).run()
    assert states(results) == ["completed"] * 2 + ["failed"] * 2 + ["completed"] * 2
    failed = results[results["state"] == "failed"]
    assert failed["reason"].tolist() == ["NameError: name 'momentum' is not defined"] * 2
    assert failed["epoch"].tolist() == [0, 0]
    said = capsys.readouterr().out
    assert "lr 0.01, batch size 8, weight decay 0.0005: failed: NameError: name 'momentum' is not defined" in said
    assert "2 trials failed: see the column reason; run(retry_failed=True) runs them again" in said

    assert states(GridSearch(run, GRID, storage).run()) == states(results)  # nobody has asked for it
    assert states(GridSearch(run, GRID, storage).run(retry_failed=True)) == ["completed"] * 6
    assert states(GridSearch(None, GRID, storage).run(retry_failed=True)) == ["completed"] * 6


class TooLarge(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, images):
        if len(images) > 8:
            torch.empty(10**15)
        return self.layer(images.mean(dim=(2, 3)))


def test_out_of_memory_is_recorded_with_the_batch_size_and_the_grid_goes_on(storage):
    def hungry(lr, batch_size, weight_decay):
        model = TooLarge()
        batches = Batches(small_images(), batch_size, 8, seed=0, device="cpu")
        val_batches = Batches(small_images(), 8, 8, device="cpu")
        yield from train(model, batches, val_batches, torch.optim.SGD(model.parameters(), lr=lr), epochs=1)

    results = GridSearch(hungry, GRID, storage).run()
    assert states(results) == ["completed", "failed"] * 3
    reason = results["reason"].iloc[1]
    assert reason.startswith("out of memory on cpu with a batch of 15 images of 8×8 pixels: lower batch_size")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda **point: iter([]), "run has yielded no Epoch"),
        (lambda **point: iter([0.5]), "TypeError: run must yield each Epoch, as train does, but it yields a float"),
        (lambda **point: None, "TypeError: 'NoneType' object is not iterable"),
        (lambda lr: iter([]), "TypeError: "),
    ],
)
def test_a_run_that_is_not_written_as_it_should_be_is_named(storage, answer, reason):
    results = GridSearch(answer, ONE, storage).run()
    assert results["reason"].iloc[0].startswith(reason)


def test_a_diverged_trial_is_kept_as_diverged_and_is_never_the_best(storage, capsys):
    grid = {"lr": [1e30, 0.01], "batch_size": [8], "weight_decay": [0]}
    search = GridSearch(run, grid, storage)
    assert states(search.run()) == ["diverged", "completed"]
    assert search.best() == {"lr": 0.01, "batch_size": 8, "weight_decay": 0}
    said = capsys.readouterr().out
    assert "lr 1e+30, batch size 8, weight decay 0: diverged in epoch 1" in said
    assert said.count("The training loss is not finite in epoch 1") == 1  # the doctor
    assert said.count("The device worked on this training for only") <= 1
    assert GridSearch(run, grid | {"lr": [1e30]}, storage).best() is None


def test_of_the_ended_trials_only_the_best_keeps_its_checkpoint(storage):
    search = GridSearch(run, GRID, storage)
    results = search.run()
    last = results[results["epoch"] == 3]
    best = last.loc[last["val_accuracy"].idxmax()]
    assert search.best() == {name: best[name] for name in GRID}
    assert list(search.checkpoints.iterdir()) == [search.checkpoint(search.best())]
    assert (
        torch.load(search.checkpoint(search.best()), weights_only=True)["history"][-1]["val_loss"] == best["val_loss"]
    )


def test_points_that_differ_in_the_last_digit_have_checkpoints_of_their_own(storage):
    grid = {"lr": [0.01234561, 0.01234562], "seed": [20240101, 20240102, 20240103]}

    def seeded(lr, seed, checkpoint):
        yield from run(lr, 8, 0, checkpoint, seed=seed)

    search = GridSearch(seeded, grid, storage)
    assert len({search.checkpoint(point) for point in search.points}) == 6
    last = search.run().groupby(["lr", "seed"]).tail(1)
    assert last.groupby("lr")["train_loss"].nunique().tolist() == [3, 3]


def test_another_grid_keeps_what_is_finished(storage):
    GridSearch(run, GRID, storage).run()
    decays = {"lr": [0.1], "batch_size": [15], "weight_decay": [0, 0.0005, 0.05]}
    trained = []
    results = GridSearch(lambda **point: trained.append(point) or run(**point), decays, storage).run()
    assert [point["weight_decay"] for point in trained] == [0, 0.05]
    assert states(results) == ["completed"] * 3
    assert states(GridSearch(None, GRID, storage).run()) == ["completed"] * 6


def test_other_settings_are_not_mixed(storage):
    settings = {"model": "resnet18", "epochs": 3}
    GridSearch(run, ONE, storage, settings=settings).run()
    other = GridSearch(run, ONE, storage, settings=settings | {"epochs": 5})
    with pytest.raises(ValueError, match=r"holds trials of other settings \(epochs 3, now 5\): name another file"):
        other.run()
    with pytest.raises(ValueError, match=r"other settings \(grid 'batch_size', 'lr', 'weight_decay', now 'lr'\)"):
        GridSearch(run, {"lr": [0.1]}, storage, settings=settings).run()
    assert states(GridSearch(None, ONE, storage, settings=settings).run()) == ["completed"]


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_journal_that_was_cut_in_the_middle_of_a_line_is_taken_up(storage, cut):
    whole = GridSearch(run, GRID, storage).run()
    storage.write_bytes(storage.read_bytes()[:-cut])
    pd.testing.assert_frame_equal(GridSearch(run, GRID, storage).run(), whole)


def test_a_second_launcher_is_told_that_there_is_one(storage):
    started, go_on = threading.Event(), threading.Event()

    def waiting(**point):
        started.set()
        go_on.wait(60)
        yield from run(**point | {"checkpoint": None})

    first = threading.Thread(target=GridSearch(waiting, ONE, storage).run)
    first.start()
    assert started.wait(60)
    try:
        with pytest.raises(
            OSError, match=r"another process is running the search in .*: wait until it ends, or stop it"
        ):
            GridSearch(run, ONE, storage).run()
        assert "1 running" in status(storage)
    finally:
        go_on.set()
        first.join()
    assert status(storage).startswith("1 point: 1 completed")


def test_a_full_disk_stops_the_search_in_one_line_and_the_next_run_goes_on(storage, monkeypatch):
    search = GridSearch(run, GRID, storage)
    save, saved = torch.save, []

    def full(content, file):
        saved.append(file)
        if len(saved) > 4:
            raise OSError(28, "No space left on device")
        save(content, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match=r"could not be written .*No space left on device.*: free some space"):
            search.run()
    assert states(search.results())[0] == "completed"
    assert states(search.run()) == ["completed"] * 6
    assert ends(storage) == ["completed"] * 6


SCRIPT = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
from small_run import GRID, run
from cnnlesson.search import GridSearch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))

def plain(**point):
    yield from run(**point | {{"checkpoint": None}})

try:
    GridSearch(plain, GRID, sys.argv[1]).run()
except OSError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="this system cannot limit the size of files")
def test_a_journal_that_the_system_does_not_let_grow_is_one_line_and_is_taken_up(storage, tmp_path):
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]))
    process = subprocess.run([sys.executable, "-c", script, storage], capture_output=True, text=True)
    refused = [line for line in process.stdout.splitlines() if line.startswith("refused:")]
    assert refused == [
        f"refused: the journal {storage} cannot be written (File too large): free some space on that disk, or name "
        "another file; what is finished is kept"
    ], process.stderr
    finished = states(GridSearch(run, GRID, storage).results()).count("completed")
    assert 0 < finished < 6
    results = GridSearch(run, GRID, storage).run()
    assert states(results) == ["completed"] * 6
    pd.testing.assert_frame_equal(results, GridSearch(run, GRID, tmp_path / "whole.journal").run())


@pytest.mark.serial
def test_a_forecast_is_near_the_actual_time_and_trains_nothing(storage, capsys):
    slow = functools.partial(run, pause=0.4)
    search = GridSearch(slow, GRID, storage)
    table = search.forecast()
    assert not storage.exists()
    assert table["batch_size"].tolist() == [8, 15]
    assert table["trials"].tolist() == [3, 3]
    assert all(3 * 0.4 < seconds < 3 * 0.4 + 1 for seconds in table["seconds"])
    assert all(50e-3 < gigabytes < 20 for gigabytes in table["memory_gb"])
    said = capsys.readouterr().out
    assert "batch size 8: 3 trials of 1 second," in said
    assert "together: " in said
    fits = search.fit_into(minutes=6 * 0.45 / 60)
    assert fits["epochs"] in (0, 1)
    assert 0.1 < fits["images"] < 0.4
    assert "trials" in capsys.readouterr().out

    GridSearch(slow, GRID | {"batch_size": [8]}, storage).run()
    assert search.forecast()["trials"].tolist() == [3]
    search.run()
    said = capsys.readouterr().out
    assert "forecast 4 seconds, actual" in said
    assert search.forecast().empty
    assert search.fit_into(minutes=1) == {}


def test_status_from_elsewhere(storage):
    with pytest.raises(ValueError, match="holds no search"):
        status(storage)
    assert not storage.exists()
    GridSearch(run, GRID, storage).run()
    assert status(storage).startswith("6 points: 6 completed; no process runs it now")
    assert "3 of 3" in status(storage)
    rates = [line.split()[0] for line in status(storage).splitlines()[2:]]
    assert rates == ["0.1", "0.1", "0.01", "0.01", "0.001", "0.001"]  # in the order of the grid


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, "the grid is empty"),
        ({"lr": []}, "the grid's lr must be a list of numbers"),
        ({"lr": 0.1}, "the grid's lr must be a list of numbers, such as"),
        ({"lr": ["fast"]}, "the grid's lr must be finite numbers, got 'fast'"),
        ({"lr": [math.nan]}, "the grid's lr must be finite numbers, got nan"),
        ({"lr": [0.1, 0.1]}, "the grid's lr has a value twice"),
        ({"lr": [True]}, "the grid's lr must be finite numbers, got True"),
        ({"lr": {0.1: 1}}, "the grid's lr must be a list of numbers"),
        ({"epochs": [1], "grid_epochs": [2]}, "two names of the grid would share a column"),
    ],
)
def test_a_grid_that_cannot_be_is_named(storage, grid, message):
    with pytest.raises(ValueError, match=message):
        GridSearch(run, grid, storage)


def test_a_storage_that_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match=r"the folder .*taken cannot be created .*: name another one"):
        GridSearch(run, ONE, tmp_path / "taken" / "grid.journal").run()
    with pytest.raises(ValueError, match=r"is not a file: name a journal, such as results/alexnet.journal"):
        GridSearch(run, ONE, tmp_path).run()
    (tmp_path / "notes.txt").write_text("my notes\nof today")
    with pytest.raises(ValueError, match=r"notes.txt is not a journal of trials: name another file"):
        GridSearch(run, ONE, tmp_path / "notes.txt").run()
    with pytest.raises(ValueError, match=r"notes.txt is not a journal of trials: name another file"):
        status(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "my notes\nof today"
    (tmp_path / "old.journal").write_text('{"op_code": 0, "study_name": "grid"}\n')
    with pytest.raises(ValueError, match=r"old.journal is a journal of cnnlesson 0.1, which this version cannot read"):
        GridSearch(run, ONE, tmp_path / "old.journal").run()
    (tmp_path / "other.journal").write_text('{"journal": "mine"}\n')
    with pytest.raises(ValueError, match=r"other.journal is not a journal of trials: name another file"):
        status(tmp_path / "other.journal")
    with pytest.raises(ValueError, match="/dev/zero is not a file"):
        status("/dev/zero")
    with pytest.raises(ValueError, match=r"is an address: name a file, such as results/alexnet.journal"):
        GridSearch(run, ONE, "postgresql://nobody@127.0.0.1:9/nothing")
