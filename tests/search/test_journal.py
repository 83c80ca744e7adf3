"""Journals: one process writes, any number read, and a crash costs at most the line that was being written."""

import functools
import json
import os
import platform
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from cnnlesson.data import ImageSet
from cnnlesson.results import Trial, best_point, unfinished
from cnnlesson.search import GridSearch, journal, status
from cnnlesson.search.progress import Progress
from cnnlesson.training import Epoch

GRID = {"lr": [0.1, 0.01, 0.001], "batch_size": [16, 32]}


def epoch(number: int = 1, epochs: int = 1, accuracy: float = 0.5) -> Epoch:
    return Epoch(number, epochs, 1.0, accuracy, 1.0, accuracy, 0.1, 0.1, 1.0, False)


def run(lr, batch_size):
    """An imagined training: the accuracy is the learning rate."""
    yield epoch(accuracy=lr)


def states(results: pd.DataFrame) -> list[str]:
    return results["state"].tolist()


# Parts


def test_parts_deal_the_points_of_each_cost_and_merge_into_one_table(tmp_path):
    storage = tmp_path / "grid.journal"
    for number in (1, 2, 3):
        part = GridSearch(run, GRID, storage, part=(number, 3))
        assert sorted(point["batch_size"] for point in part.own_points) == [16, 32]
        results = part.run()
        assert states(results).count("completed") == 2 * number
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"grid.{number}-of-3.journal" for number in (1, 2, 3)]
    pd.testing.assert_frame_equal(results, GridSearch(run, GRID, tmp_path / "whole.journal").run())
    assert GridSearch(None, GRID, storage).run()["state"].eq("completed").all()


def test_an_unfinished_table_names_what_is_missing_and_has_no_best(tmp_path, capsys):
    search = GridSearch(run, GRID, tmp_path / "grid.journal", part=(1, 6))
    results = search.run()
    assert "the table is unfinished: 5 waiting. Run the other parts, or leave part out" in capsys.readouterr().out
    assert len(results) == 6
    assert len(unfinished(results)) == 5
    assert {"lr": 0.001, "batch_size": 32} in unfinished(results)
    with pytest.raises(
        ValueError, match=r"5 points not ended yet, such as lr 0.1, batch size 32: run the search to its"
    ):
        search.best()
    assert search.best(allow_unfinished=True) == best_point(results, allow_unfinished=True) == search.own_points[0]


@pytest.mark.parametrize("part", [(0, 3), (4, 3), (1, 0)])
def test_a_part_that_is_none_is_refused(tmp_path, part):
    with pytest.raises(ValueError, match=r"part must be \(number, how many\), such as \(3, 8\)"):
        GridSearch(run, GRID, tmp_path / "grid.journal", part=part)


def test_a_point_that_another_process_trains_now_is_left_to_it(tmp_path, capsys):
    storage = tmp_path / "grid.journal"

    def interrupted_by_the_whole(lr, batch_size):
        """While part 1 trains its first point, the whole grid is run too."""
        if not trained:
            trained.append(lr)
            whole.append(GridSearch(run, GRID, storage).run())
        yield epoch(accuracy=lr)

    trained, whole = [], []
    results = GridSearch(interrupted_by_the_whole, GRID, storage, part=(1, 2)).run()
    assert states(whole[0]).count("running") == 1
    assert states(whole[0]).count("completed") == 5
    assert states(results) == ["completed"] * 6
    assert storage.read_text().count('"end"') == 5
    assert storage.with_name("grid.1-of-2.journal").read_text().count('"end"') == 1


def test_of_two_processes_that_claim_one_point_the_first_trains_it(tmp_path):
    storage = tmp_path / "grid.journal"
    point = {"lr": 0.1, "batch_size": 16}
    other = journal.Journal(storage.with_name("grid.1-of-2.journal"))
    with other.launch({"grid": GRID, "settings": {}, "run": {}}):
        other.write({"start": point})
        search = GridSearch(run, GRID, storage)
        trials, looks = search._trials, []

        def late() -> dict:
            """The first look at the journals is of a moment before the other process wrote its claim."""
            looks.append(trials())
            return {key: Trial() for key in looks[0]} if len(looks) == 1 else trials()

        search._trials = late
        with search.journal.launch({"grid": GRID, "settings": {}, "run": {}}):
            progress = Progress(len(search.points), 0, search.results)
            assert point not in list(search._claims(False, progress))
    records = [json.loads(line) for line in storage.read_text().splitlines()]
    assert [record["end"] for record in records if "end" in record] == ["withdrawn"]


# One process per journal


def launched_elsewhere(path, seconds_ago: float, host: str = "another-machine") -> None:
    """Leave the journal as a process on another machine does that was killed, or is still running."""
    with journal.Journal(path).launch({"grid": GRID, "settings": {}, "run": {}}):
        pass
    lines = path.read_text().splitlines()[:-1]  # it has not left
    lines = [line.replace(json.dumps(platform.node()), json.dumps(host)) for line in lines]
    then = time.time() - seconds_ago
    records = [json.loads(line) | {"time": then} for line in lines]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_process_on_another_machine_owns_its_journal_while_it_is_heard_of(tmp_path):
    path = tmp_path / "grid.journal"
    launched_elsewhere(path, seconds_ago=60)
    with pytest.raises(OSError, match=r"another process is running .* on another-machine, last heard of 60 s ago"):
        GridSearch(run, GRID, path).run()
    assert "1 process runs it now" in status(path)
    launched_elsewhere(path := tmp_path / "silent.journal", seconds_ago=121)
    assert states(GridSearch(run, GRID, path).run()) == ["completed"] * 6


def test_a_refused_process_leaves_no_trace_that_would_block_a_later_one(tmp_path):
    path = tmp_path / "grid.journal"

    def run_twice(lr, batch_size):
        with pytest.raises(OSError, match="another process is running"):
            GridSearch(run, GRID, path).run()
        yield epoch()

    assert states(GridSearch(run_twice, GRID, path).run()) == ["completed"] * 6
    assert "no process runs it now" in status(path)


def test_a_process_whose_journal_was_taken_over_stops(tmp_path):
    path = tmp_path / "grid.journal"

    def silent_for_too_long(lr, batch_size):
        if batch_size == 32:
            with path.open("a") as file:  # what another machine writes
                file.write('{"launch": {"host": "another-machine", "pid": 1}, "by": "other", "time": 1.0}\n')
                file.write('{"start": {"lr": 0.1, "batch_size": 32}, "by": "other", "time": 1.0}\n')
        yield epoch()

    with pytest.raises(OSError, match=r"the journal .*grid.journal was removed, or another process has taken it over"):
        GridSearch(silent_for_too_long, GRID, path).run()


def test_of_two_processes_that_create_a_journal_at_once_the_first_owns_it(tmp_path, monkeypatch):
    path = tmp_path / "grid.journal"
    first, second = journal.Journal(path), journal.Journal(path)
    content = {"grid": GRID, "settings": {}, "run": {}}
    # The second process has read the file just before the first one wrote into it.
    refuse, looks = second._refuse_if_owned, []
    monkeypatch.setattr(second, "_refuse_if_owned", lambda: looks.append(1) if not looks else refuse())
    with first.launch(content):
        with pytest.raises(OSError, match="another process is running the search"), second.launch(content):
            pass
        first.write({"start": {"lr": 0.1, "batch_size": 16}})
    assert [record["start"]["lr"] for record in journal.read(path) if "start" in record] == [0.1]


def test_a_process_whose_launch_is_gone_from_its_journal_stops(tmp_path):
    path = tmp_path / "grid.journal"
    own = journal.Journal(path)
    with own.launch({"grid": GRID, "settings": {}, "run": {}}):
        path.write_bytes(path.read_bytes().replace(own.by.encode(), b"another"))
        with pytest.raises(OSError, match="was removed, or another process has taken it over"):
            own.write({"start": {"lr": 0.1, "batch_size": 16}})


def test_a_process_says_that_it_is_alive_while_an_epoch_takes_long(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "HEARTBEAT_SECONDS", 0.5)
    path = tmp_path / "grid.journal"
    with journal.Journal(path).launch({"grid": GRID, "settings": {}, "run": {}}):
        time.sleep(2.5)
    alive = [json.loads(line)["time"] for line in path.read_text().splitlines() if '"alive"' in line]
    assert 1 <= len(alive) <= 2
    assert abs(alive[0] - time.time()) < 5


def test_a_dead_process_of_this_machine_blocks_nothing(tmp_path):
    path = tmp_path / "grid.journal"
    launched_elsewhere(path, seconds_ago=1, host=platform.node())
    text = path.read_text()
    for pid, started in ((4_000_000, 1.0), (1, 1.0)):  # no such process; a process that started at another time
        changed = json.loads(text.splitlines()[-1])
        changed["launch"] |= {"pid": pid, "started": started}
        path.write_text(text.splitlines()[0] + "\n" + json.dumps(changed) + "\n")
        assert journal.owner_of(journal.read(path)) is None
    changed["launch"] |= {"pid": os.getppid(), "started": journal.psutil.Process(os.getppid()).create_time()}
    path.write_text(text.splitlines()[0] + "\n" + json.dumps(changed) + "\n")
    assert journal.owner_of(journal.read(path)) is not None


def test_a_journal_that_is_removed_during_the_search_is_one_line(tmp_path):
    path = tmp_path / "grid.journal"

    def removing(lr, batch_size):
        path.unlink(missing_ok=True)
        yield epoch()

    with pytest.raises(OSError, match=r"the journal .* was removed, or another process"):
        GridSearch(removing, GRID, path).run()


@pytest.mark.parametrize("damage", [b"", b"\0" * 512, b'{"epoch": {"num', b'{"start": 1}{"start": 2}\n', b"\r\n\r\n"])
def test_what_a_crash_leaves_at_the_end_costs_nothing(tmp_path, damage):
    path = tmp_path / "grid.journal"
    whole = GridSearch(run, GRID, path).run()
    path.write_bytes(path.read_bytes() + damage)
    pd.testing.assert_frame_equal(GridSearch(None, GRID, path).run(), whole)


@pytest.mark.parametrize("length", [0, 1, 20])
def test_a_journal_cut_within_its_header_starts_again(tmp_path, length):
    path = tmp_path / "grid.journal"
    path.write_bytes(journal.FIRST_BYTES[:length])
    assert states(GridSearch(run, GRID, path).run()) == ["completed"] * 6


# Any name and any number


@pytest.mark.parametrize(
    "name", ["epochs", "learning_rate", "number", "model", "seconds", "epoch", "state", "diverged"]
)
def test_any_name_may_be_in_a_grid(tmp_path, name):
    def run(lr, **point):
        for number in (1, 2):
            yield epoch(number, 2, accuracy=point[name] / 10 + lr)

    search = GridSearch(run, {"lr": [0.1, 0.2], name: [1, 2]}, tmp_path / "grid.journal")
    results = search.run()
    assert results["epoch"].tolist() == [1, 2] * 4
    assert results["state"].tolist() == ["completed"] * 8
    assert results["epochs"].tolist() == [2] * 8
    column = name if name in ("number", "model") else f"grid_{name}"
    assert results[column].tolist() == [1, 1, 2, 2] * 2
    assert search.best() == {"lr": 0.2, name: 2}
    assert name in status(tmp_path / "grid.journal").splitlines()[1].split()


def test_numpy_numbers_are_plain_ones(tmp_path):
    grid = {"lr": np.logspace(-3, -1, 3), "batch_size": list(np.array([16, 32])), "seed": range(2)}
    search = GridSearch(lambda lr, batch_size, seed: run(lr, batch_size), grid, tmp_path / "grid.journal")
    search.run()
    assert search.best() == {"lr": 0.1, "batch_size": 16}
    assert [type(value) for value in search.points[0].values()] == [float, int, int]


def test_zero_is_the_same_point_as_an_integer_and_as_a_float(tmp_path):
    path = tmp_path / "grid.journal"
    whole = GridSearch(run, {"lr": [0], "batch_size": [16]}, path)
    whole.run()
    again = GridSearch(None, {"lr": [0.0], "batch_size": [16]}, path)
    assert states(again.run()) == ["completed"]
    assert again.checkpoint({"lr": 0.0, "batch_size": 16}) == whole.checkpoint({"lr": 0, "batch_size": 16})


# What has changed


def test_a_change_of_the_code_is_told_before_results_mix(tmp_path, capsys):
    def fixed(lr, batch_size):
        yield epoch(accuracy=lr / 2)

    path = tmp_path / "grid.journal"
    GridSearch(run, GRID | {"lr": [0.1]}, path).run()
    capsys.readouterr()
    GridSearch(fixed, GRID | {"lr": [0.1]}, path).run()  # nothing is left to run, so nothing mixes
    assert "run has changed" not in capsys.readouterr().out
    GridSearch(fixed, GRID, path).run()
    assert f"run has changed since trials in {path} ended (code in Python" in capsys.readouterr().out


def images(brightness: int) -> ImageSet:
    return ImageSet(torch.full((4, 3, 2, 2), brightness, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("a", "b"))


def bound(lr, batch_size, train_set, epochs):
    yield epoch()


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"epochs": 3}, {"epochs": 5}, "epochs 3, now 5"),
        ({"epochs": 3, "train_set": images(1)}, {"epochs": 3, "train_set": images(2)}, "train_set "),
        ({"epochs": 3, "train_set": images(1)}, {"epochs": 3, "train_set": images(1)}, None),
    ],
)
def test_a_change_of_bound_arguments_is_told(tmp_path, capsys, before, now, told):
    path = tmp_path / "grid.journal"
    none = {"train_set": None}
    GridSearch(functools.partial(bound, **none | before), GRID | {"lr": [0.1]}, path).run()
    GridSearch(functools.partial(bound, **none | now), GRID, path).run()
    note = f"run has changed since trials in {path} ended ({told}"
    assert (note in capsys.readouterr().out) == (told is not None)


def test_a_change_of_the_dtype_is_told(tmp_path, capsys, monkeypatch):
    path = tmp_path / "grid.journal"
    monkeypatch.setattr("cnnlesson.search.grid.training_dtype", lambda device: torch.float32)
    GridSearch(run, GRID | {"lr": [0.1]}, path).run()
    monkeypatch.setattr("cnnlesson.search.grid.training_dtype", lambda device: torch.float16)
    GridSearch(run, GRID, path).run()
    assert "(dtype torch.float32, now torch.float16)" in capsys.readouterr().out


def test_without_ray_installed_it_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "cnnlesson.search.on_ray", raising=False)
    with pytest.raises(ValueError, match=r"Ray is not installed: pip install ray, or leave ray out"):
        GridSearch(run, GRID, tmp_path / "grid.journal").run(ray="auto")
