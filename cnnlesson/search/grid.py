"""A grid search over hyper-parameters that loses nothing: it continues where it stopped, whatever stopped it."""

import gc
import glob
import itertools
import json
import math
import numbers
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cnnlesson.doctor import diagnose
from cnnlesson.results import ENDED, NOT_ENDED, best_point, column_of, last_epochs, overview, results_table, words
from cnnlesson.runtime.atomic import remove_unfinished
from cnnlesson.runtime.device import busy_share, find_device
from cnnlesson.runtime.display import count, duration
from cnnlesson.search.changes import check_launch, describe_run
from cnnlesson.search.forecast import Cost, measure
from cnnlesson.search.journal import Journal, Trial, key_of, owner_of, read, trials_of
from cnnlesson.search.progress import Progress
from cnnlesson.search.trial import TrialError, epochs_of
from cnnlesson.training import Epoch

SAME_COST = {"lr", "weight_decay", "momentum", "seed"}  # names that do not change how long a trial takes


class GridSearch:
    """Trains at every point of a grid; each point ends once: completed, diverged, or failed with its reason.

    Args:
        run: called with the values of one point by name, such as run(lr=0.1, batch_size=16, weight_decay=0.0005); it
            yields each `cnnlesson.training.Epoch` as soon as it ends. Bind its other arguments with functools.partial.
            If it has a parameter `checkpoint`, it gets the path of a file to pass on to `train`: then a trial that was
            stopped continues after its last epoch, and otherwise from its start.
        grid: for each name the numbers to try. The last name changes fastest.
        storage: the path of the journal, such as "results/alexnet.journal", which may be on a mounted Drive.
        settings: what all trials have in common, as plain values (the model, the images, the epochs). Trials of other
            settings are not mixed: a storage that holds some is refused.
        num_classes: lets the training doctor know the chance level.
        checkpoints: the folder for checkpoints; None puts it beside the journal, with the name of the journal.
        part: (3, 8) trains every eighth point, into a journal of its own beside `storage`: start one process per part,
            on as many machines as you like, with one shared folder. `results` merges the journals of all parts.

    Raises:
        ValueError: the grid, the storage or the part cannot be used.
    """

    def __init__(
        self,
        run: Callable[..., Iterator[Epoch]],
        grid: Mapping[str, Sequence[float]],
        storage: str | os.PathLike,
        *,
        settings: Mapping | None = None,
        num_classes: int | None = None,
        checkpoints: str | os.PathLike | None = None,
        part: tuple[int, int] = (1, 1),
    ):
        if "://" in os.fspath(storage):
            raise ValueError(f"the storage {storage} is an address: name a file, such as results/alexnet.journal")
        self.trial_run = run
        self.grid = plain_grid(grid)
        self.points = _combinations(self.grid)
        self.settings = json.loads(json.dumps(dict(settings or {})))  # as they come back from the journal
        self.num_classes = num_classes
        self.storage = Path(storage).expanduser()
        self.checkpoints = Path(checkpoints or self.storage.with_suffix(".checkpoints")).expanduser()
        number, num_parts = self.part = part
        if not 1 <= number <= num_parts:
            raise ValueError(f"part must be (number, how many), such as (3, 8), with a number from 1 to 8, got {part}")
        self.journal = Journal(self.storage if part == (1, 1) else _part_path(self.storage, *part))
        self.told = set()  # remarks of the training doctor on the device
        self._costs = {}
        self._forecast = None  # seconds

    # Before

    def forecast(self) -> pd.DataFrame:
        """Print how long the grid will take on this machine, and how much memory, before anything starts.

        A few steps are run at each batch size. Trials that diverge end earlier; trials that have ended do not count.

        Returns:
            A row per batch size (or whatever else changes the cost of a trial): the number of trials to run, the
            seconds per trial, and the peak memory in GB, of the GPU or of the process.
        """
        rows = []
        for kind, points in self._todo_by_cost().items():
            try:
                cost = self._cost(points[0])
            except TrialError as error:
                print(f"{words(points[0])}: {error}")
                continue
            memory = math.nan if cost.peak_bytes is None else cost.peak_bytes / 1e9
            rows.append({**dict(kind), "trials": len(points), "seconds": cost.seconds, "memory_gb": memory})
            size = "memory unknown" if math.isnan(memory) else f"{memory:.1f} GB"
            print(f"{words(dict(kind)) or 'each'}: {count(len(points), 'trial')} of {duration(cost.seconds)}, {size}")
        if not rows:
            print("there is nothing to run")
            return pd.DataFrame(rows)
        self._forecast = sum(row["trials"] * row["seconds"] for row in rows)
        print(f"together: {duration(self._forecast)} on this machine")
        if not torch.cuda.is_available():
            print("there is no GPU here: fit_into(minutes=30) reports how many epochs or images fit into a time")
        return pd.DataFrame(rows)

    def fit_into(self, minutes: float) -> dict[str, float]:
        """Print how many epochs, or what share of the training and validation images, make the grid fit into `minutes`.

        Returns:
            {"epochs": how many fit with all images (0 if one is too much), "images": the share of the images that fits
            with all epochs, at most 1}; nothing if every trial has ended.
        """
        if not (math.isfinite(minutes) and minutes > 0):
            raise ValueError(f"minutes must be a finite number above 0, got {minutes}")
        costs = [self._cost(points[0]) for points in self._todo_by_cost().values() for _ in points]
        if not costs:
            print("there is nothing to run")
            return {}
        seconds_per_epoch = sum(cost.epoch for cost in costs)
        available = 60 * minutes - sum(cost.start for cost in costs)
        epochs = costs[0].epochs
        most = max(0, math.floor(available / seconds_per_epoch))
        images = min(1.0, max(0.0, available / (epochs * seconds_per_epoch)))
        print(
            f"into {minutes:g} minutes fit {count(len(costs), 'trial')} of {count(most, 'epoch')} with all images, "
            f"or of {count(epochs, 'epoch')} with {images:.0%} of the images"
        )
        return {"epochs": most, "images": images}

    def _todo_by_cost(self) -> dict[tuple, list[dict]]:
        trials = self._trials()
        return _by_cost([point for point in self._own_points() if trials[key_of(point)].state not in ENDED])

    def _cost(self, point: dict) -> Cost:
        if (kind := _kind(point)) not in self._costs:
            self._costs[kind] = measure(self.trial_run, point)
        return self._costs[kind]

    # During

    def run(self, retry_failed: bool = False, ray: str | None = None, gpus_per_trial: float = 1) -> pd.DataFrame:
        """Run every trial that has not ended, and return `results()`.

        It can be stopped at any moment, or killed: the next call continues each trial after its last finished epoch.

        Args:
            retry_failed: run the failed trials once more.
            ray: the address of a Ray cluster, or "auto", to run trials on all its machines.
            gpus_per_trial: with Ray and GPUs; 0.5 runs two trials on each GPU.

        Raises:
            ValueError: the storage holds trials of other settings.
            OSError: another process runs this search, or the disk is full.
        """
        start, expected, self._forecast = time.perf_counter(), self._forecast, None
        launch = {"grid": self.grid, "settings": self.settings, "run": describe_run(self.trial_run)}
        notes = dict.fromkeys(note for path in self._paths() for note in check_launch(path, read(path), launch))
        with self.journal.launch(launch) as was_cut:
            trials = self._trials()
            ended = sum(trial.state in ENDED for trial in trials.values())
            epochs = next((cost.epochs for cost in self._costs.values()), 1)
            with Progress(len(trials), ended, lambda: overview(self.results()), ray is None, epochs) as progress:
                if was_cut:
                    progress.say(f"the last line of {self.journal.path} was cut in the middle and is dropped")
                if ended:
                    progress.say(f"{ended} of {len(trials)} trials have ended already and are not run again")
                for note in notes if ended < len(trials) else ():
                    progress.say(note)
                if ray is not None:
                    from cnnlesson.search.on_ray import run_on_ray

                    run_on_ray(self, progress, retry_failed, ray, gpus_per_trial)
                else:
                    for point in self.claims(retry_failed):
                        self._run_here(Attempt(self, point, progress))
            results = self.results()
        if expected and ended < len(trials):
            print(f"forecast {duration(expected)}, actual {duration(time.perf_counter() - start)}")
        self._print_what_is_left()
        return results

    def claims(self, retry_failed: bool) -> Iterator[dict]:
        """The points to train by this process, each claimed in its journal just before it is yielded."""
        for point in self._own_points():
            trial = self._trials()[key_of(point)]
            if trial.state in ("waiting", "interrupted") or (trial.state == "failed" and retry_failed):
                self.journal.write({"start": point})
                # Another process may have claimed it at the same moment: the first one trains it.
                if self._trials()[key_of(point)].by == self.journal.by:
                    yield point
                else:
                    self.journal.write({"end": "withdrawn", "point": point})

    def _run_here(self, attempt: "Attempt") -> None:
        try:
            with busy_share(find_device(None)) as busy:
                for epoch in epochs_of(self.trial_run, attempt.point, self.checkpoint(attempt.point)):
                    attempt.add(epoch, busy())
            attempt.end()
        except TrialError as error:
            attempt.fail(str(error))
        gc.collect()  # the network goes before the next one comes, also if running out of memory ended it

    def _own_points(self) -> list[dict]:
        """Every n-th point of the grid, those of one cost dealt in turn, in the order of the grid."""
        number, num_parts = self.part
        dealt = list(itertools.chain(*_by_cost(self.points).values()))[number - 1 :: num_parts]
        return [point for point in self.points if point in dealt]

    def _print_what_is_left(self) -> None:
        states = Counter(trial.state for trial in self._trials().values())
        if failed := states["failed"]:
            print(f"{count(failed, 'trial')} failed: see the column reason; run(retry_failed=True) runs them again")
        if left := ", ".join(f"{states[state]} {state}" for state in NOT_ENDED if states[state]):
            print(f"the table is unfinished: {left}. Run the other parts, or leave part out to train what is missing")

    # After

    def results(self) -> pd.DataFrame:
        """What is known of the grid, in the journals of all parts: a row per trial and epoch.

        Columns: the names of the grid; those of `Epoch`, its number as epoch; state: completed, diverged, failed, or of
        a point that has not ended waiting, running or interrupted; and reason, of failed trials. A point without an
        epoch has one row, with epoch 0. A name of the grid that is also one of those columns, such as epochs, has the
        column grid_epochs.
        """
        return results_table(self.points, self._trials())

    def best(self, allow_unfinished: bool = False) -> dict | None:
        """The completed point with the highest validation accuracy after its last epoch: see `best_point`."""
        return best_point(self.results(), allow_unfinished)

    def checkpoint(self, point: Mapping[str, float]) -> Path:
        """The file that keeps the state of a point's training; of the points that have ended, the best has one."""
        return self.checkpoints / ("-".join(f"{name}={value!r}" for name, value in point.items()) + ".pt")

    def remove_checkpoints(self) -> None:
        """Of the trials that have ended, keep the files of the best point, and of failed ones, which may run again."""
        results, trials = self.results(), self._trials()
        best = best_point(results, allow_unfinished=True)
        for _, seeds in itertools.groupby(sorted(self.points, key=_without_seed), key=_without_seed):
            seeds = list(seeds)
            states = {trials[key_of(point)].state for point in seeds}
            is_best = best is not None and best.items() <= seeds[0].items()
            if not is_best and states <= {"completed", "diverged"}:
                for point in seeds:
                    self.checkpoint(point).unlink(missing_ok=True)
                    remove_unfinished(self.checkpoint(point))

    def _paths(self) -> list[Path]:
        return _journal_paths(self.storage)

    def _trials(self) -> dict[tuple, Trial]:
        return _with_waiting(self.points, trials_of(map(read, self._paths())))


class Attempt:
    """A trial that runs now: its epochs and its end go to the journal, the screen and the training doctor."""

    def __init__(self, search: GridSearch, point: dict, progress: Progress):
        self.search, self.point, self.progress = search, point, progress
        self.name = words(point)
        self.history = []
        self.told = set()  # remarks of the training doctor
        progress.start(self.name)

    def add(self, epoch: Epoch, busy: float | None = None) -> None:
        """Keep an epoch; `busy` is the share of it in which the device worked."""
        self.history.append(epoch)
        self.search.journal.write({"epoch": asdict(epoch), "point": self.point})
        self.progress.epoch(self.name, epoch)
        for remark in diagnose(self.history, self.search.num_classes):
            self._tell(remark, self.told)
        for remark in diagnose([], None, busy):  # of the device: what holds for one trial holds for the next
            self._tell(remark, self.search.told)

    def _tell(self, remark: str, told: set) -> None:
        """Print a remark of the doctor, once per symptom, though its numbers change from epoch to epoch."""
        symptom = re.sub(r"[\d.e%-]+", "", remark)
        if symptom not in told:
            self.progress.say(f"  {self.name}, epoch {self.history[-1].number}: {remark}")
            told.add(symptom)

    def end(self) -> None:
        last = self.history[-1]
        done = f"epoch {last.number}, loss {last.train_loss:.3f}, validation {last.val_accuracy:.1%}"
        state, text = ("diverged", f"diverged in epoch {last.number}") if last.diverged else ("completed", done)
        self._end({"end": state}, text)

    def fail(self, reason: str) -> None:
        self._end({"end": "failed", "reason": reason}, f"failed: {reason}")

    def _end(self, record: dict, text: str) -> None:
        self.search.journal.write({**record, "point": self.point})
        self.progress.end(self.name, text)
        self.search.remove_checkpoints()


def status(storage: str | os.PathLike) -> str:
    """How far a search is, as text and as a table, for another terminal.

    Raises:
        ValueError: there is no search in the storage.
    """
    storage = Path(storage).expanduser()
    journals = {path: read(path) for path in _journal_paths(storage)}
    grids = [record["launch"]["grid"] for records in journals.values() for record in records if "launch" in record]
    if not grids:
        raise ValueError(f"{storage} holds no search: start it with run()")
    points = {key_of(point): point for grid in grids for point in _combinations(grid)}
    trials = _with_waiting(points.values(), trials_of(journals.values()))
    table = results_table(points.values(), trials)
    counts = Counter(last_epochs(table)["state"])
    text = ", ".join(
        f"{counts[state]} {state}" for state in (*ENDED, "running", "interrupted", "waiting") if counts[state]
    )
    running = sum(owner_of(records) is not None for records in journals.values())
    who = "no process runs it now" if running == 0 else f"{count(running, 'process', 'processes')} running it"
    return f"{count(len(points), 'point')}: {text}; {who}\n{overview(table).to_string(index=False)}"


def plain_grid(grid: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """The grid's values as plain numbers, also those of NumPy arrays.

    Raises:
        ValueError: the grid is empty, or has values that are not finite numbers or are listed twice.
    """
    if not grid:
        raise ValueError('the grid is empty: give it names and values, such as {"lr": [0.1, 0.01]}')
    plain = {}
    for name, values in grid.items():
        if isinstance(values, str | Mapping) or not isinstance(values, Sequence | np.ndarray) or not len(values):
            raise ValueError(f"the grid's {name} must be a list of numbers, such as [0.1, 0.01], got {values!r}")
        for value in values:
            if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise ValueError(f"the grid's {name} must be finite numbers, got {value!r}")
        plain[name] = [value.item() if isinstance(value, np.generic) else value for value in values]
        if len({*plain[name]}) < len(plain[name]):
            raise ValueError(f"the grid's {name} has a value twice: {plain[name]}")
    if len({*map(column_of, plain)}) < len(plain):
        raise ValueError(f"two names of the grid would share a column of the results: {', '.join(plain)}")
    return plain


def _combinations(grid: Mapping[str, Sequence[float]]) -> list[dict]:
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _with_waiting(points: Iterable[Mapping], trials: Mapping[tuple, Trial]) -> dict[tuple, Trial]:
    return {key_of(point): trials.get(key_of(point)) or Trial() for point in points}


def _kind(point: Mapping) -> tuple:
    """What of a point changes its cost."""
    return tuple((name, value) for name, value in point.items() if name not in SAME_COST)


def _by_cost(points: Sequence[dict]) -> dict[tuple, list[dict]]:
    groups = {}
    for point in sorted(points, key=_kind):  # the smallest batch first: a CPU keeps the memory of the largest
        groups.setdefault(_kind(point), []).append(point)
    return groups


def _without_seed(point: Mapping) -> tuple:
    return tuple((name, value) for name, value in point.items() if name != "seed")


def _part_path(storage: Path, number: int, num_parts: int) -> Path:
    return storage.with_name(f"{storage.stem}.{number}-of-{num_parts}{storage.suffix}")


def _journal_paths(storage: Path) -> list[Path]:
    """The journals of all parts: alexnet.journal, alexnet.1-of-8.journal, ..."""
    parts = storage.parent.glob(f"{glob.escape(storage.stem)}.*-of-*{glob.escape(storage.suffix)}")
    return [storage, *sorted(parts)]
