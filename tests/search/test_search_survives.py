"""Whatever dies while a search runs, every point ends once, with the figures of an undisturbed run."""

import functools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pandas as pd
import pytest
from small_run import slow_run

from cnnlesson.search import GridSearch
from cnnlesson.trials import ENDED

GRID = {"lr": [0.1, 0.01, 0.001], "batch_size": [5, 8, 15], "weight_decay": [0, 0.0005]}  # 18 points
KILLS = 20
DATABASE = os.environ.get("CNNLESSON_POSTGRESQL")
needs_database = pytest.mark.skipif(not DATABASE, reason="CNNLESSON_POSTGRESQL names no database to test with")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> pd.DataFrame:
    return GridSearch(slow_run, GRID, tmp_path_factory.mktemp("undisturbed") / "grid.journal").run(workers=2)


@pytest.fixture(params=["journal", pytest.param("postgresql", marks=needs_database)])
def search(request, tmp_path, monkeypatch) -> GridSearch:
    """A new search on each kind of storage."""
    monkeypatch.chdir(tmp_path)
    storage = tmp_path / "grid.journal" if request.param == "journal" else DATABASE
    name = "grid" if request.param == "journal" else f"test-{uuid.uuid4()}"
    return GridSearch(slow_run, GRID, storage, name=name, checkpoints=tmp_path / "checkpoints")


def completed_points(search: GridSearch) -> Counter:
    """How many completed trials each point has, as Optuna itself reads them."""
    if search.store.is_file:
        backend = optuna.storages.journal.JournalFileBackend(search.store.address)
        storage = optuna.storages.JournalStorage(backend)
    else:
        storage = search.store.address
    study = optuna.load_study(study_name=search.store.name, storage=storage)
    assert not study.get_trials(states=[optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.WAITING])
    completed = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    return Counter(tuple(trial.params[name] for name in GRID) for trial in completed)


def test_killed_workers_lose_nothing(search, undisturbed, capsys, monkeypatch):
    monkeypatch.setattr("cnnlesson.search.MOST_DEATHS", KILLS + 1)  # a busy machine may take five in one epoch
    chance = random.Random(0)
    killed = []

    def kill() -> None:
        while len(killed) < KILLS:
            time.sleep(chance.uniform(0.05, 0.45))
            workers = multiprocessing.active_children()
            if workers:
                victim = chance.choice(workers)
                os.kill(victim.pid, signal.SIGKILL)
                killed.append(victim.pid)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    results = search.run(workers=2)
    assert len(killed) >= KILLS, "the search was over before all kills: make its trials longer"
    killer.join()
    assert set(completed_points(search).values()) == {1}
    assert len(completed_points(search)) == 18
    pd.testing.assert_frame_equal(results, undisturbed)
    said = capsys.readouterr().out
    assert "its process was killed (SIGKILL); it goes on after its last epoch" in said
    assert len(list(search.checkpoints.iterdir())) == 1


def test_a_trial_whose_process_is_always_killed_in_one_epoch_has_failed_and_the_grid_goes_on(tmp_path):
    def deadly(lr, **others):
        if lr == 0.1:
            os.kill(os.getpid(), signal.SIGKILL)
        yield from slow_run(lr, **others)

    grid = {"lr": [0.1, 0.01], "batch_size": [15], "weight_decay": [0]}
    results = GridSearch(functools.partial(deadly, checkpoint=None), grid, tmp_path / "grid.journal").run(workers=2)
    assert results["state"].tolist() == ["failed"] + ["completed"] * 4
    reason = results["reason"].iloc[0]
    assert "its process was killed 5 times within one epoch (SIGKILL); it may need more memory" in reason


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from cnnlesson import trials
trials.HEARTBEAT_SECONDS, trials.GRACE_SECONDS = 1, 4
from test_search_survives import GRID, GridSearch, slow_run
if __name__ == "__main__":
    storage, name, checkpoints, workers = sys.argv[1:]
    GridSearch(slow_run, GRID, storage, name=name, checkpoints=checkpoints).run(workers=int(workers))
"""


def num_ended(search: GridSearch) -> int:
    return sum(state in ENDED for state in search.store.states()) if search.store.exists() else 0


@contextmanager
def launched(search: GridSearch, script: Path, workers: int) -> Iterator[subprocess.Popen]:
    """A process that runs the search, and is killed at the end of the block if it still runs."""
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, script, search.store.address, search.store.name, search.checkpoints, str(workers)]
    output = script.with_suffix(".out")
    with output.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            yield process
        except BaseException:
            print(output.read_text()[-2000:])
            raise
        finally:
            process.kill()


def wait_until_ended(search: GridSearch, number: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while num_ended(search) < number:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("search", ["journal"], indirect=True)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_launcher_loses_nothing(search, undisturbed, tmp_path, workers):
    for number in (3, 6):
        with launched(search, tmp_path / "launch.py", workers) as process:
            wait_until_ended(search, number, process)
    assert num_ended(search) < 18, "the launcher was not killed in the middle"
    results = search.run(workers=2)
    assert set(completed_points(search).values()) == {1}
    assert len(completed_points(search)) == 18
    pd.testing.assert_frame_equal(results, undisturbed)


@pytest.mark.parametrize("search", [pytest.param("postgresql", marks=needs_database)], indirect=True)
def test_of_two_machines_on_one_database_one_dies(search, undisturbed, tmp_path):
    with launched(search, tmp_path / "second.py", workers=1) as second:
        with launched(search, tmp_path / "first.py", workers=1) as first:
            wait_until_ended(search, 4, first)
        assert second.wait(timeout=120) == 0  # it has taken over what the first had claimed
    assert set(completed_points(search).values()) == {1}
    assert len(completed_points(search)) == 18
    pd.testing.assert_frame_equal(search.results(), undisturbed)


@needs_database
def test_a_database_that_cannot_be_written_is_one_line():
    read_only = f"{DATABASE}?options=-c%20default_transaction_read_only%3Don"
    with pytest.raises(ConnectionError) as refused:
        GridSearch(slow_run, GRID, read_only, name=f"test-{uuid.uuid4()}").run()
    assert "cannot be used (cannot execute" in str(refused.value)
    assert "read-only transaction): check its address" in str(refused.value)
    assert "\n" not in str(refused.value)
