"""A search on a Ray cluster of two machines has the figures of one without Ray, whatever dies: `make test-ray`."""

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from small_run import GRID, run, slow_run

from cnnlesson.data import ImageSet
from cnnlesson.search import GridSearch, status
from cnnlesson.training import Epoch

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.ray

TESTS = Path(__file__).parents[1]
PATHS = os.pathsep.join(map(str, (TESTS, TESTS / "search", TESTS.parent)))


@pytest.fixture(scope="module")
def cluster():
    """Two machines with two CPUs each, and this process connected to the first."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "env_vars": {"PYTHONPATH": PATHS}})
    cluster.second = cluster.add_node(num_cpus=2, env_vars={"PYTHONPATH": PATHS})
    ray.init(
        cluster.address, log_to_driver=False, logging_level="error", runtime_env={"env_vars": {"PYTHONPATH": PATHS}}
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> pd.DataFrame:
    return GridSearch(slow_run, GRID, tmp_path_factory.mktemp("undisturbed") / "grid.journal").run()


def ends(storage: Path) -> Counter:
    records = map(json.loads, storage.read_text().splitlines())
    return Counter(tuple(record["point"].values()) for record in records if "end" in record)


def test_figures_are_those_of_a_search_without_ray(cluster, undisturbed, tmp_path, capsys):
    storage = tmp_path / "grid.journal"
    search = GridSearch(slow_run, GRID, storage)
    pd.testing.assert_frame_equal(search.run(ray="auto"), undisturbed)
    assert ends(storage) == Counter(dict.fromkeys(ends(storage), 1)) and len(ends(storage)) == 6
    assert [path.name for path in search.checkpoints.iterdir()] == [search.checkpoint(search.best()).name]
    assert "lr 0.1, batch size 8, weight decay 0.0005: epoch 4, loss" in capsys.readouterr().out
    GridSearch(None, GRID, storage).run(ray="auto")
    assert "6 of 6 trials have ended already" in capsys.readouterr().out


def test_a_trial_that_fails_and_one_that_diverges_are_kept_as_such(cluster, tmp_path):
    def broken(lr, **others):
        if lr == 0.01:
            raise NameError("name 'momentum' is not defined")
        yield from run(1e30 if lr == 0.001 else lr, **others)

    results = GridSearch(functools.partial(broken, checkpoint=None), GRID, tmp_path / "grid.journal").run(ray="auto")
    last = results.groupby(["lr", "batch_size"], sort=False).tail(1)
    assert last["state"].tolist() == ["completed"] * 2 + ["failed"] * 2 + ["diverged"] * 2
    assert last["reason"].tolist()[2] == "NameError: name 'momentum' is not defined"


DRIVER = """
import functools, ray, sys
from small_run import GRID, slow_run
from cnnlesson.search import GridSearch
ray.init(sys.argv[1], log_to_driver=False, logging_level="error")
GridSearch(functools.partial(slow_run, pause=0.5), GRID, sys.argv[2]).run(ray="auto")
"""


def test_the_driver_is_killed_and_started_again(cluster, undisturbed, tmp_path):
    storage = tmp_path / "grid.journal"
    environment = os.environ | {"PYTHONPATH": PATHS}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, cluster.address, storage], env=environment)
    deadline = time.monotonic() + 120
    while not storage.exists() or storage.read_text().count('"end"') < 2:
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert "no process runs it now" in status(storage)
    results = GridSearch(slow_run, GRID, storage).run(ray="auto")
    pd.testing.assert_frame_equal(results, undisturbed)
    assert set(ends(storage).values()) == {1}


def where_the_images_are(lr, images):
    """The validation accuracy is 1 if the images lie in memory that the processes of a machine share."""
    address = images.images.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(number, 16) for number in line.split()[0].split("-"))
        if start <= address < end:
            is_shared = "s" in line.split()[1]
    yield Epoch(1, 1, 0.0, 0.0, 0.0, float(is_shared), lr, 1.0, 1.0, False)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not list the memory of a process")
def test_the_images_are_in_memory_once_per_machine(cluster, tmp_path):
    images = ImageSet(torch.zeros(1000, 3, 64, 64, dtype=torch.uint8), torch.zeros(1000, dtype=torch.int64), ("a",))
    search = GridSearch(functools.partial(where_the_images_are, images=images), {"lr": [1, 2, 3, 4]}, tmp_path / "grid")
    assert search.run(ray="auto")["val_accuracy"].tolist() == [1.0] * 4


def test_a_machine_that_is_lost_in_the_middle_of_its_trials_costs_nothing(cluster, undisturbed, tmp_path):
    storage = tmp_path / "grid.journal"
    slower = functools.partial(slow_run, pause=0.5)

    def lose_the_machine() -> None:
        while not storage.exists() or storage.read_text().count('"epoch"') < 6:
            time.sleep(0.1)
        cluster.remove_node(cluster.second, allow_graceful=False)

    killer = threading.Thread(target=lose_the_machine)
    killer.start()
    results = GridSearch(slower, GRID, storage).run(ray="auto")
    killer.join()
    deadline = time.monotonic() + 60
    while sum(node["Alive"] for node in ray.nodes()) > 1:  # Ray notices after some seconds
        assert time.monotonic() < deadline, "the machine was not lost"
        time.sleep(0.5)
    pd.testing.assert_frame_equal(results, undisturbed)
    assert set(ends(storage).values()) == {1}


def test_no_cluster_is_one_line(tmp_path):
    ray.shutdown()
    with pytest.raises(ConnectionError, match=r"there is no Ray cluster at 127.0.0.1:9 .*: start one with `ray start"):
        GridSearch(run, GRID, tmp_path / "grid.journal").run(ray="127.0.0.1:9")
