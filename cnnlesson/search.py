"""A grid search over hyper-parameters that loses nothing: it goes on where it stopped, whatever stopped it."""

import gc
import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import product
from multiprocessing.connection import wait
from pathlib import Path

import pandas as pd
import torch

from cnnlesson.doctor import diagnose
from cnnlesson.forecast import Cost, measure
from cnnlesson.progress import Progress
from cnnlesson.results import best_point
from cnnlesson.runtime.atomic import remove_unfinished
from cnnlesson.runtime.checkpoint import CheckpointError
from cnnlesson.runtime.display import count, duration
from cnnlesson.training import Epoch
from cnnlesson.trial_run import TrialError, epochs_of
from cnnlesson.trials import ENDED, TakenOverError, Trial, TrialStore, saved_points
from cnnlesson.workers import Worker, pack

MOST_DEATHS = 5  # of a trial's process within one epoch: then the trial has failed
POLL_SECONDS = 5  # how often a launcher that has nothing left to do looks at the trials of other machines
SAME_COST = {"lr", "weight_decay", "momentum", "seed"}  # names that do not change how long a trial takes


class GridSearch:
    """Trains at every point of a grid; each point ends once: completed, diverged, pruned, or failed with its reason.

    Args:
        run: called with the values of one point by name, such as run(lr=0.1, batch_size=16, weight_decay=0.0005); it
            yields each `cnnlesson.training.Epoch` as soon as it ends. If it has a parameter `checkpoint` it gets the
            path of a file there, to hand on to `train`: then a trial that was stopped goes on after its last epoch,
            and otherwise from its start.
        grid: for each name the numbers to try. The trials are run in their order, the last name changing fastest.
        storage: the path of a journal file, such as "results/alexnet.journal", which may be on a mounted Drive; or
            "postgresql://user@host/database", which several machines can share.
        name: of the search in its storage; a database needs one.
        settings: what all trials have in common, as plain values (the model, the images, the epochs). Trials of other
            settings are not mixed: a storage that holds some is refused.
        num_classes: lets the training doctor know what guessing is.
        checkpoints: the folder for checkpoints; beside a journal file, it has the name of the journal.
    """

    def __init__(
        self,
        run: Callable,
        grid: Mapping[str, Sequence[float]],
        storage: str | os.PathLike,
        *,
        name: str | None = None,
        settings: Mapping | None = None,
        num_classes: int | None = None,
        checkpoints: str | os.PathLike | None = None,
    ):
        self.trial_run = run
        self.points = _points(grid)
        is_file = "://" not in os.fspath(storage)
        if name is None and not is_file:
            raise ValueError(
                'a database holds the searches of others too: give yours a name, such as name="ada-alexnet"'
            )
        self.num_classes = num_classes
        beside = Path(storage).with_suffix(".checkpoints") if is_file else Path("checkpoints", name)
        self.checkpoints = Path(checkpoints or beside)
        self.store = TrialStore(storage, name or "grid", self.points, settings or {})
        self._costs = {}
        self._said = _Said()
        self._forecasts = {}  # in seconds, by the number of workers

    # Before

    def forecast(self, workers: int = 1) -> pd.DataFrame:
        """Print how long the grid will take on this machine, and how much memory, before anything starts.

        A few steps are made at each batch size, by as many workers at once as shall run then. Trials that diverge end
        earlier, and trials that are finished are not counted.

        Returns:
            A row for each batch size (or whatever else changes the cost of a trial): how many trials are to be run,
            seconds of each, and the most memory of each in GB, of the GPU or of the process.
        """
        rows, seconds = [], []
        for kind, points in _by_cost(self._todo()).items():
            try:
                cost = self._cost(points[0], workers)
            except TrialError as error:
                print(f"{_words(points[0])}: {error}")
                continue
            seconds += [cost.seconds] * len(points)
            memory = math.nan if cost.peak_bytes is None else cost.peak_bytes / 1e9
            rows.append({**dict(kind), "trials": len(points), "seconds": cost.seconds, "memory_gb": memory})
            trials = f"{count(len(points), 'trial')} of {duration(cost.seconds)}"
            size = "memory unknown" if math.isnan(memory) else f"{memory:.1f} GB"
            print(f"{_words(dict(kind)) or 'each'}: {trials}, {size}")
        if not rows:
            print("there is nothing to run")
            return pd.DataFrame(rows)
        self._forecasts[workers] = _makespan(seconds, workers)
        several = ", ".join(f"{duration(_makespan(seconds, workers * machines))} on {machines}" for machines in (2, 3))
        print(
            f"together: {duration(self._forecasts[workers])} with {count(workers, 'worker')} on this machine; "
            f"on several such machines {several}"
        )
        if not torch.cuda.is_available():
            print("there is no GPU here: fit_into(minutes=30) says how many epochs or images fit into a time")
        return pd.DataFrame(rows)

    def fit_into(self, minutes: float, workers: int = 1) -> dict[str, float]:
        """Print how many epochs, or what share of the training and validation images, make the grid fit into `minutes`.

        Returns:
            {"epochs": how many fit with all images (0 where one is too much), "images": the share of the images that
            fits with all epochs, at most 1}; nothing where every trial has ended.
        """
        costs = [self._cost(points[0], workers) for points in _by_cost(self._todo()).values() for _ in points]
        if not costs:
            print("there is nothing to run")
            return {}
        seconds_an_epoch = _makespan([cost.epoch for cost in costs], workers)
        available = 60 * minutes - _makespan([cost.start for cost in costs], workers)
        epochs = costs[0].epochs
        most = max(0, math.floor(available / seconds_an_epoch))
        images = min(1.0, max(0.0, available / (epochs * seconds_an_epoch)))
        print(
            f"into {minutes:g} minutes fit {count(len(costs), 'trial')} of {count(most, 'epoch')} with all images, "
            f"or of {count(epochs, 'epoch')} with {images:.0%} of the images"
        )
        return {"epochs": most, "images": images}

    def _todo(self) -> list[dict]:
        """The points that have not ended yet."""
        if not self.store.exists():
            return self.points
        return [point for point, state in zip(self.points, self.store.states(), strict=True) if state not in ENDED]

    def _cost(self, point: dict, workers: int) -> Cost:
        key = (_kind(point), workers)
        if key not in self._costs:
            self._costs[key] = measure(self.trial_run, point) if workers == 1 else self._cost_in_workers(point, workers)
        return self._costs[key]

    def _cost_in_workers(self, point: dict, workers: int) -> Cost:
        """What a trial costs while others run beside it: all workers measure the same one at once."""
        pool = _start_workers(self.trial_run, workers)
        try:
            for worker in pool:
                worker.measure(point)
            answers = [worker.receive() for worker in pool]
        finally:
            for worker in pool:
                worker.stop()
        for kind, answer in answers:
            if kind != "cost":
                raise TrialError(answer)
        return max((cost for _, cost in answers), key=lambda cost: cost.seconds)

    # During

    def run(self, workers: int = 1, prune: bool = False, retry_failed: bool = False) -> pd.DataFrame:
        """Run every trial that has not ended, and return `results()`.

        Args:
            workers: 1 runs the trials here; more run as many at once, each in a process of its own.
            prune: let successive halving end the trials that are behind after 1, 3, 9, ... epochs. Off, since the table
                of the exercise wants every point.
            retry_failed: run the failed trials once more.

        It can be stopped at any moment, or killed: the next call goes on after the last finished epoch of each trial.
        """
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        forecast = self._forecasts.pop(workers, None)
        start = time.perf_counter()
        with self.store.launch(retry_failed) as notes:
            states = self.store.states()
            num_ended = sum(state in ENDED for state in states)
            epochs = next((cost.epochs for cost in self._costs.values()), self.store.settings.get("epochs", 1))
            with Progress(len(states), num_ended, self.store.overview, workers == 1, epochs) as progress:
                for note in notes:
                    progress.say(note)
                if num_ended:
                    progress.say(f"{num_ended} of {len(states)} trials have ended already and are not run again")
                if workers == 1:
                    self._run_here(progress, prune)
                elif num_ended < len(states):
                    self._run_in_workers(progress, prune, min(workers, len(states) - num_ended))
                    self._remove_checkpoints()  # also what a worker wrote while its trial was given up
            results = self.results()
        if forecast and num_ended < len(states):
            print(f"forecast {duration(forecast)}, actual {duration(time.perf_counter() - start)}")
        failed = sum(state == "failed" for state in self.store.states())
        if failed:
            print(f"{count(failed, 'trial')} failed: see the column reason; run(retry_failed=True) runs them again")
        return results

    def _run_here(self, progress: Progress, prune: bool) -> None:
        while trial := self._next():
            attempt = _Attempt(trial)
            progress.start(attempt.name)
            try:
                for epoch, busy in epochs_of(self.trial_run, trial.point, self.checkpoint(trial.point)):
                    if not self._add(attempt, epoch, busy, progress, prune):
                        break
                else:
                    self._complete(attempt, progress)
            except TrialError as error:
                self._fail(attempt, str(error), progress)
            except (KeyboardInterrupt, CheckpointError):  # the trial goes on another time
                with suppress(OSError):  # where the journal cannot be written either, the next run sees that it is dead
                    self.store.interrupt(trial)
                raise
            gc.collect()  # the network goes before the next one comes, also where running out of memory ended it

    def _run_in_workers(self, progress: Progress, prune: bool, workers: int) -> None:
        pool = _start_workers(self.trial_run, workers)
        deaths = Counter()  # of a trial's process since its last epoch
        try:
            while True:
                for worker in pool:
                    nothing_runs = not any(other.attempt for other in pool)
                    if worker.attempt is None and (trial := self._next(wait_for_others=nothing_runs)):
                        worker.start(_Attempt(trial), self.checkpoint(trial.point))
                        progress.start(worker.attempt.name)
                busy = {worker.connection: worker for worker in pool if worker.attempt}
                if not busy:
                    return
                for connection in wait(busy):
                    self._hear(busy[connection], deaths, progress, prune)
        finally:
            for worker in pool:
                worker.stop()
                if worker.attempt is not None:
                    with suppress(OSError):
                        self.store.interrupt(worker.attempt.trial)

    def _hear(self, worker: Worker, deaths: Counter, progress: Progress, prune: bool) -> None:
        """Take what a worker says, and free it if that was the last of its trial."""
        attempt = worker.attempt
        kind, content = worker.receive()
        if kind == "epoch":
            deaths[attempt.name] = 0
            if not self._add(attempt, *content, progress, prune):
                worker.restart()  # it is in the middle of the next epoch
        elif kind == "end":
            self._complete(attempt, progress)
            worker.attempt = None
        elif kind == "failed":
            self._fail(attempt, content, progress)
            worker.restart()  # memory that ran out is free again
        elif kind == "full":
            raise CheckpointError(content)
        else:
            deaths[attempt.name] += 1
            worker.restart()
            if deaths[attempt.name] == MOST_DEATHS:
                reason = (
                    f"its process was killed {MOST_DEATHS} times within one epoch ({content}); it may need more memory"
                )
                self._fail(attempt, reason, progress)
            else:
                self.store.interrupt(attempt.trial)
                progress.drop(attempt.name, f"its process was killed ({content}); it goes on after its last epoch")

    def _next(self, wait_for_others: bool = True) -> Trial | None:
        """The next trial to run. With a database, wait for those that run on other machines: one may die."""
        while (trial := self.store.claim()) is None:
            if self.store.is_file or not wait_for_others or all(state in ENDED for state in self.store.states()):
                return None
            time.sleep(POLL_SECONDS)
            self.store.queue_again()
        return trial

    def _add(self, attempt: "_Attempt", epoch: Epoch, busy: float | None, progress: Progress, prune: bool) -> bool:
        """Keep an epoch. False where the trial is not to go on."""
        attempt.history.append(epoch)
        try:
            self.store.add(attempt.trial, epoch)
        except TakenOverError:
            progress.drop(attempt.name, "another machine has taken it over")
            return False
        progress.epoch(attempt.name, epoch)
        for advice in diagnose(attempt.history, self.num_classes):
            if attempt.said.is_new(advice):
                progress.say(f"  {attempt.name}, epoch {epoch.number}: {advice}")
        for advice in diagnose([], None, busy):  # of the device: what holds for one trial holds for the next
            if self._said.is_new(advice):
                progress.say(f"  {attempt.name}, epoch {epoch.number}: {advice}")
        if prune and epoch.number < epoch.epochs and not epoch.diverged and self.store.should_prune(attempt.trial):
            self.store.prune(attempt.trial)
            self._ended(attempt, f"pruned after epoch {epoch.number}, validation {epoch.val_accuracy:.1%}", progress)
            return False
        return True

    def _complete(self, attempt: "_Attempt", progress: Progress) -> None:
        last = attempt.history[-1]
        self.store.complete(attempt.trial, last)
        words = f"epoch {last.number}, loss {last.train_loss:.3f}, validation {last.val_accuracy:.1%}"
        self._ended(attempt, f"diverged in epoch {last.number}" if last.diverged else words, progress)

    def _fail(self, attempt: "_Attempt", reason: str, progress: Progress) -> None:
        self.store.fail(attempt.trial, reason)
        self._ended(attempt, f"failed: {reason}", progress)

    def _ended(self, attempt: "_Attempt", words: str, progress: Progress) -> None:
        progress.end(attempt.name, words)
        self._remove_checkpoints()

    def _remove_checkpoints(self) -> None:
        """Of the trials that have ended, only the best one's is of use, and those of failed ones if they run again."""
        best = self.best()
        for point, state in zip(self.points, self.store.states(), strict=True):
            is_best = best is not None and best.items() <= point.items()
            if state in ENDED and state != "failed" and not is_best:
                self.checkpoint(point).unlink(missing_ok=True)
                remove_unfinished(self.checkpoint(point))

    # After

    def results(self) -> pd.DataFrame:
        """What is known of the grid: a row for each trial and epoch.

        Columns: the names of the grid; those of `Epoch`, its number as epoch; state: completed, diverged, pruned,
        failed, running or interrupted; and reason, of failed trials. One that failed in its first epoch has one row.
        """
        return self.store.table()

    def best(self) -> dict | None:
        """The completed point with the highest validation accuracy after its last epoch: see `best_point`."""
        return best_point(self.results())

    def checkpoint(self, point: Mapping[str, float]) -> Path:
        """The file that keeps the state of a point's training; of the points that have ended, the best has one."""
        return self.checkpoints / ("-".join(f"{name}={value!r}" for name, value in point.items()) + ".pt")


class _Said:
    """What the doctor has said: a symptom is told once, though its numbers change from epoch to epoch."""

    def __init__(self):
        self.symptoms = set()

    def is_new(self, advice: str) -> bool:
        symptom = re.sub(r"[\d.e%-]+", "", advice)
        is_new = symptom not in self.symptoms
        self.symptoms.add(symptom)
        return is_new


class _Attempt:
    """A trial that runs now."""

    def __init__(self, trial: Trial):
        self.trial = trial
        self.name = _words(trial.point)
        self.history = []  # its epochs so far
        self.said = _Said()


def status(storage: str | os.PathLike, name: str = "grid") -> str:
    """How far a search is, in words and as a table, for whoever looks at it from elsewhere.

    Raises:
        ValueError, OSError: there is no such search in the storage.
    """
    store = TrialStore(storage, name, saved_points(storage, name), None)
    counts = Counter(store.states())
    states = [state for state in (*ENDED, "running", "interrupted", "waiting") if counts[state]]
    words = ", ".join(f"{counts[state]} {state}" for state in states)
    if store.is_launched() is False:
        words += "; no process runs it now"
    return f"{count(len(store.points), 'point')}: {words}\n{store.overview().to_string(index=False)}"


def _start_workers(run: Callable, workers: int) -> list[Worker]:
    threads = max(1, torch.get_num_threads() // workers)
    packed = pack(run)
    return [Worker(packed, number, threads) for number in range(workers)]


def _points(grid: Mapping[str, Sequence[float]]) -> list[dict]:
    """All combinations of a grid's values.

    Raises:
        ValueError: the grid is empty, or has values that are no finite numbers or come twice.
    """
    if not grid:
        raise ValueError('the grid is empty: give it names and values, such as {"lr": [0.1, 0.01]}')
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"the grid's {name} must be a list of numbers, such as [0.1, 0.01], got {values!r}")
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"the grid's {name} must be finite numbers, got {value!r}")
        if len({*values}) < len(values):
            raise ValueError(f"the grid's {name} has a value twice: {list(values)}")
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def _kind(point: dict) -> tuple:
    """What of a point changes its cost."""
    return tuple((name, value) for name, value in point.items() if name not in SAME_COST)


def _by_cost(points: Sequence[dict]) -> dict[tuple, list[dict]]:
    groups = {}
    for point in sorted(points, key=_kind):  # the smallest batch first: a processor keeps the memory of the largest
        groups.setdefault(_kind(point), []).append(point)
    return groups


def _makespan(seconds: Sequence[float], workers: int) -> float:
    """How long `workers` need for trials of so many seconds each, if each takes the next one when it is free."""
    free_at = [0.0] * workers
    for trial in seconds:
        free_at[free_at.index(min(free_at))] += trial
    return max(free_at)


def _words(point: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in point.items())
