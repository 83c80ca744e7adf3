"""Whatever dies while a search runs, every point ends once, with the figures of an undisturbed run."""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from small_run import slow_run

from cnnlesson.search import GridSearch, status

GRID = {"lr": [0.1, 0.01, 0.001], "batch_size": [5, 8, 15], "weight_decay": [0, 0.0005]}  # 18 points
KILLS = int(os.environ.get("CNNLESSON_KILLS", 12))
PAUSE, LONGEST_WAIT = (0.1, 1.5) if KILLS <= 12 else (2.5, 5)  # in seconds; 100 kills take some minutes
SHORT_PAUSE = 0.01  # of tests that kill at a chosen moment
SCRIPT = """
import functools, sys
sys.path.insert(0, {tests!r})
from test_survives import GRID, GridSearch, slow_run
number, num_parts = map(int, sys.argv[2].split("/"))
run = functools.partial(slow_run, pause=float(sys.argv[3]))
GridSearch(run, GRID, sys.argv[1], part=(number, num_parts)).run()
"""


quick_run = functools.partial(slow_run, pause=SHORT_PAUSE)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> pd.DataFrame:
    return GridSearch(quick_run, GRID, tmp_path_factory.mktemp("undisturbed") / "grid.journal").run()


@pytest.fixture
def launch(tmp_path) -> Iterator[Callable]:
    """Start a process for a part of the search, with a folder of temporary files of its own, as another machine has."""
    script = tmp_path / "launch.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])

    def launch(storage: Path, part: str, pause: float = SHORT_PAUSE) -> subprocess.Popen:
        folder = tmp_path / f"tmp-{part.replace('/', '-of-')}"
        folder.mkdir(exist_ok=True)
        environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        command = [sys.executable, script, storage, part, str(pause)]
        with (tmp_path / f"{len(list(tmp_path.glob('*.out')))}.out").open("w") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        started.append(process)
        return process

    started = []
    yield launch
    for process in started:
        process.kill()
        process.wait()


def output_of_all(tmp_path: Path) -> str:
    return "".join(path.read_text() for path in tmp_path.glob("*.out"))


def ends(folder: Path) -> Counter:
    """How often each point ended, over all journals of a folder."""
    counts = Counter()
    for path in folder.glob("*.journal"):
        for line in path.read_bytes().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # cut by a kill
            if "end" in record:
                counts[tuple(record["point"].values())] += 1
    return counts


def test_parts_that_are_killed_at_random_lose_nothing(launch, undisturbed, tmp_path):
    folder = tmp_path / "shared"
    storage = folder / "grid.journal"
    chance = random.Random(0)
    parts = [f"{number}/3" for number in (1, 2, 3)]
    running = {part: launch(storage, part, PAUSE) for part in parts}
    killed = Counter()
    deadline = time.monotonic() + 60 + 20 * KILLS
    while running:
        assert time.monotonic() < deadline
        time.sleep(chance.uniform(0.1, LONGEST_WAIT))
        for part, process in list(running.items()):
            if process.poll() == 0:
                del running[part]
            elif process.poll() is not None:
                assert process.returncode == -signal.SIGKILL, output_of_all(tmp_path)[-2000:]
        if killed.total() < KILLS and running:
            part = chance.choice(list(running))
            running[part].kill()
            running[part].wait()
            killed[part] += 1
            running[part] = launch(storage, part, PAUSE)
    assert killed.total() == KILLS, "the search was over before all kills: make its trials longer"
    assert len(ends(folder)) == 18
    assert set(ends(folder).values()) == {1}
    search = GridSearch(None, GRID, storage)
    pd.testing.assert_frame_equal(search.results(), undisturbed)
    left = sorted(path.name for path in folder.rglob("*") if path.is_file())
    assert left == [*(f"grid.{number}-of-3.journal" for number in (1, 2, 3)), search.checkpoint(search.best()).name]
    assert [path for part in parts for path in (tmp_path / f"tmp-{part.replace('/', '-of-')}").iterdir()] == []
    assert "another process" not in output_of_all(tmp_path)


def test_of_four_launchers_of_one_journal_one_runs(launch, undisturbed, tmp_path):
    storage = tmp_path / "shared" / "grid.journal"
    processes = [launch(storage, "1/1") for _ in range(4)]
    assert sorted(process.wait(timeout=120) for process in processes) == [0, 1, 1, 1]
    assert set(ends(storage.parent).values()) == {1}
    assert output_of_all(tmp_path).count("OSError: another process is running the search in") == 3
    pd.testing.assert_frame_equal(GridSearch(None, GRID, storage).results(), undisturbed)


def test_a_run_without_part_takes_what_parts_have_left(launch, undisturbed, tmp_path):
    storage = tmp_path / "shared" / "grid.journal"
    assert launch(storage, "1/3").wait(timeout=120) == 0
    killed = launch(storage, "2/3")
    while len(ends(storage.parent)) < 8:
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    assert status(storage).startswith(f"18 points: {len(ends(storage.parent))} completed")
    assert "no process runs it now" in status(storage)
    results = GridSearch(quick_run, GRID, storage).run()
    pd.testing.assert_frame_equal(results, undisturbed)
    assert set(ends(storage.parent).values()) == {1}
