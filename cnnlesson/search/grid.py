"""A grid search over hyper-parameters that loses nothing: it continues where it stopped, whatever stopped it."""

import gc
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import pandas as pd

from cnnlesson.data.batches import watch_batches
from cnnlesson.doctor import diagnose
from cnnlesson.points import combinations, key_of, plain_grid, words
from cnnlesson.results import ENDED, NOT_ENDED, Trial, best_point, last_epochs, overview, results_table, trials_of
from cnnlesson.runtime.atomic import remove_unfinished
from cnnlesson.runtime.device import busy_share, find_device, training_dtype
from cnnlesson.runtime.display import count, duration
from cnnlesson.runtime.fingerprint import changes_between, fingerprint
from cnnlesson.search.journal import Journal, journals_of
from cnnlesson.search.progress import Progress
from cnnlesson.search.trial import Cost, Outcomes, TrialError, epochs_of, measure
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
        number, num_parts = part
        if not 1 <= number <= num_parts:
            raise ValueError(f"part must be (number, how many), such as (3, 8), with a number from 1 to 8, got {part}")
        self.trial_run = run
        self.device = find_device(getattr(run, "keywords", {}).get("device"))  # that functools.partial has bound
        self.grid = plain_grid(grid)
        self.points = combinations(self.grid)
        # Every n-th point, dealt by cost, so that each part has as many of the slow ones.
        dealt = sorted(self.points, key=_kind)[number - 1 :: num_parts]
        self.own_points = [point for point in self.points if point in dealt]
        self.settings = json.loads(json.dumps(dict(settings or {})))  # as they come back from the journal
        self.num_classes = num_classes
        self.storage = Path(storage).expanduser()
        self.checkpoints = Path(checkpoints or self.storage.with_suffix(".checkpoints")).expanduser()
        own_name = f"{self.storage.stem}.{number}-of-{num_parts}{self.storage.suffix}"
        self.journal = Journal(self.storage if part == (1, 1) else self.storage.with_name(own_name))
        self._costs: dict[tuple, Cost] = {}
        self._histories: dict[tuple, list[Epoch]] = {}  # of the trials that this process has started
        self._forecast: float | None = None  # seconds

    # Before

    def forecast(self) -> pd.DataFrame:
        """Print how long the grid will take on this machine, and how much memory, before anything starts.

        A few steps are run at each batch size. Trials that diverge end earlier; trials that have ended do not count.

        Returns:
            A row per batch size (or whatever else changes the cost of a trial): the number of trials to run, the
            seconds per trial, and the peak memory in GB, of the GPU or of the process.
        """
        rows = []
        for kind, points in self._todo().items():
            try:
                cost = self._cost(points[0])
            except TrialError as error:
                print(f"{words(points[0])}: {error}")
                continue
            rows.append({**dict(kind), "trials": len(points), "seconds": cost.seconds, "memory_gb": cost.memory_gb})
            trials = f"{count(len(points), 'trial')} of {duration(cost.seconds)}"
            print(f"{words(dict(kind)) or 'each'}: {trials}, {cost.memory_gb:.1f} GB")
        if not rows:
            print("there is nothing to run")
            return pd.DataFrame()
        self._forecast = sum(row["trials"] * row["seconds"] for row in rows)
        print(f"together: {duration(self._forecast)} on this machine")
        if self.device.type == "cpu":
            print("if that is too long, fit_into(minutes=30) (in a shell, --fit 30) reports what fits")
        return pd.DataFrame(rows)

    def fit_into(self, minutes: float) -> dict[str, float]:
        """Print how many epochs, or what share of the training and validation images, make the grid fit into `minutes`.

        Returns:
            {"epochs": how many fit with all images (0 if one is too much), "images": the share of the images that fits
            with all epochs, at most 1}; nothing if every trial has ended.
        """
        if not 0 < minutes < math.inf:
            raise ValueError(f"minutes must be a finite number above 0, got {minutes}")
        costs = [self._cost(points[0]) for points in self._todo().values() for _ in points]
        if not costs:
            print("there is nothing to run")
            return {}
        most = (60 * minutes - sum(cost.start for cost in costs)) / sum(cost.epoch for cost in costs)
        epochs, images = max(0, math.floor(most)), min(1.0, max(0.0, most / costs[0].epochs))
        print(
            f"{minutes:g} minutes are enough for {count(len(costs), 'trial')} of {count(epochs, 'epoch')} with all "
            f"images, or of {count(costs[0].epochs, 'epoch')} with {images:.0%} of the images"
        )
        return {"epochs": epochs, "images": images}

    def _todo(self) -> dict[tuple, list[dict]]:
        """The points that have not ended, by what their cost depends on."""
        trials = self._trials()
        points = [point for point in self.own_points if trials[key_of(point)].state not in ENDED]
        # The smallest batch first: a CPU keeps the memory of the largest.
        return {kind: list(group) for kind, group in groupby(sorted(points, key=_kind), key=_kind)}

    def _cost(self, point: dict) -> Cost:
        if (kind := _kind(point)) not in self._costs:
            self._costs[kind] = measure(self.trial_run, point, self.device)
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
        began, expected, self._forecast = time.perf_counter(), self._forecast, None
        what = fingerprint(self.trial_run) | {"dtype": str(training_dtype(self.device))}
        launch = {"grid": self.grid, "settings": self.settings, "run": what}
        notes = _compare_with_journals(self.storage, launch)
        with self.journal.launch(launch):
            ended = sum(trial.state in ENDED for trial in self._trials().values())
            progress = Progress(len(self.points), ended, lambda: overview(self.results()))
            if ended:
                progress.say(f"{ended} of {len(self.points)} trials have ended already and are not run again")
            for note in notes if ended < len(self.points) else ():
                progress.say(note)
            points = self._claims(retry_failed, progress)
            if ray is None:
                outcomes = self._run_here(points, progress)
            else:
                from cnnlesson.search.on_ray import run_on_ray

                outcomes = run_on_ray(self.trial_run, points, self.checkpoint, ray, gpus_per_trial)
            with progress.bar, watch_batches(progress.batch), closing(outcomes):
                for point, outcome in outcomes:
                    self._keep(point, outcome, progress)
        if expected and ended < len(self.points):
            print(f"forecast {duration(expected)}, actual {duration(time.perf_counter() - began)}")
        states = Counter(trial.state for trial in self._trials().values())
        if states["failed"]:
            failed = count(states["failed"], "trial")
            print(f"{failed} failed: see the column reason; run(retry_failed=True) runs them again")
        if left := ", ".join(f"{states[state]} {state}" for state in NOT_ENDED if states[state]):
            print(f"the table is unfinished: {left}. Run the other parts, or leave part out to train what is missing")
        return self.results()

    def _claims(self, retry_failed: bool, progress: Progress) -> Iterator[dict]:
        """The points that this process trains, each claimed in its journal just before it is yielded."""
        for point in self.own_points:
            state = self._trials()[key_of(point)].state
            if state in ("waiting", "interrupted") or (state == "failed" and retry_failed):
                self.journal.write({"start": point})
                # Another process may have claimed it at the same moment: the first one trains it.
                if self._trials()[key_of(point)].by == self.journal.by:
                    self._histories[key_of(point)] = []
                    progress.show(words(point), 0.0)
                    yield point
                else:
                    self.journal.write({"end": "withdrawn", "point": point})

    def _run_here(self, points: Iterator[dict], progress: Progress) -> Outcomes:
        for point in points:
            try:
                with busy_share(self.device) as busy:
                    for epoch in epochs_of(self.trial_run, point, self.checkpoint(point)):
                        yield point, epoch
                        for remark in diagnose([], None, busy()):  # what holds for the device, holds for all trials
                            progress.remark("this device", epoch.number, remark)
                yield point, None
            except TrialError as error:
                yield point, error
            gc.collect()  # the network goes before the next one comes, also if running out of memory ended it

    def _keep(self, point: dict, outcome: Epoch | TrialError | None, progress: Progress) -> None:
        """Write what has become of a trial to the journal, and show it."""
        name, history = words(point), self._histories[key_of(point)]
        if isinstance(outcome, Epoch):
            history.append(outcome)
            self.journal.write({"epoch": asdict(outcome), "point": point})
            text = f": epoch {outcome.number} of {outcome.epochs}, validation {outcome.val_accuracy:.1%}"
            progress.show(name, outcome.number / outcome.epochs, text)
            for remark in diagnose(history, self.num_classes):
                progress.remark(name, outcome.number, remark)
            return
        if outcome is not None:
            end, text = {"end": "failed", "reason": str(outcome)}, f"failed: {outcome}"
        elif (last := history[-1]).diverged:
            end, text = {"end": "diverged"}, f"diverged in epoch {last.number}"
        else:
            end = {"end": "completed"}
            text = f"epoch {last.number}, loss {last.train_loss:.3f}, validation {last.val_accuracy:.1%}"
        self.journal.write({**end, "point": point})
        progress.say(f"{name}: {text}")
        progress.show(name, 1.0)
        self._remove_checkpoints()

    # After

    def results(self) -> pd.DataFrame:
        """What is known of the grid, in the journals of all parts: a row per trial and epoch.

        Columns: the names of the grid; those of `Epoch`, its number as epoch; state: completed, diverged or failed, or
        waiting, running or interrupted for a point that has not ended; and reason, of failed trials. A point without an
        epoch has one row, with epoch 0. If a name of the grid is also one of those columns, such as epochs, its column
        is grid_epochs.
        """
        return results_table(self.points, self._trials())

    def best(self, allow_unfinished: bool = False) -> dict | None:
        """The completed point with the highest validation accuracy after its last epoch: see `best_point`."""
        return best_point(self.results(), allow_unfinished)

    def checkpoint(self, point: Mapping[str, float]) -> Path:
        """The file that keeps the state of a point's training; of the points that have ended, the best has one."""
        # All digits, so that two points never share a file; 0 and 0.0 are the same point.
        exact = (f"{name}={int(value) if value == int(value) else value!r}" for name, value in point.items())
        return self.checkpoints / f"{'-'.join(exact)}.pt"

    def _remove_checkpoints(self) -> None:
        """Of the points that have ended, keep the files of the best, and of failed trials, which may run again."""
        trials = self._trials()
        best = best_point(results_table(self.points, trials), allow_unfinished=True)
        same_point: dict[tuple, list[dict]] = {}  # trials that differ only in their seed
        for point in self.points:
            without_seed = {name: value for name, value in point.items() if name != "seed"}
            same_point.setdefault(key_of(without_seed), []).append(point)
        for key, seeds in same_point.items():
            states = {trials[key_of(point)].state for point in seeds}
            if states <= {"completed", "diverged"} and dict(key) != best:
                for point in seeds:
                    self.checkpoint(point).unlink(missing_ok=True)
                    remove_unfinished(self.checkpoint(point))

    def _trials(self) -> dict[tuple, Trial]:
        return trials_of(self.points, journals_of(self.storage))


def status(storage: str | os.PathLike) -> str:
    """How far a search is, as text and as a table, for another terminal.

    Raises:
        ValueError: there is no search in the storage.
    """
    journals = journals_of(Path(storage).expanduser())
    grids = [record["launch"]["grid"] for records, _ in journals for record in records if "launch" in record]
    if not grids:
        raise ValueError(f"{storage} holds no search: start it with run()")
    points = {key_of(point): point for grid in grids for point in combinations(grid)}.values()
    table = results_table(points, trials_of(points, journals))
    counts = Counter(last_epochs(table)["state"])
    states = ", ".join(f"{counts[state]} {state}" for state in (*ENDED, *NOT_ENDED) if counts[state])
    running = sum(owner is not None for _, owner in journals)
    who = f"{count(running, 'process runs', 'processes run')} it now" if running else "no process runs it now"
    return f"{count(len(points), 'point')}: {states}; {who}\n{overview(table).to_string(index=False)}"


def _compare_with_journals(storage: Path, launch: Mapping) -> list[str]:
    """What the user must know before trials of `launch` join those of the journals.

    Raises:
        ValueError: the journals have other settings, or a grid over other names.
    """
    notes = []
    for records, _ in journals_of(storage):
        trained = {record["by"] for record in records if record.get("end") in ENDED}
        for record in (record for record in records if "launch" in record):
            before, now = (one["settings"] | {"grid": sorted(one["grid"])} for one in (record["launch"], launch))
            if changes := changes_between(before, now):
                raise ValueError(f"{storage} holds trials of other settings ({changes}): name another file")
            if record["by"] in trained and (changes := changes_between(record["launch"]["run"], launch["run"])):
                notes.append(
                    f"run has changed since trials in {storage} ended ({changes}): they keep their old results. To "
                    "train them again, name another file"
                )
    return list(dict.fromkeys(notes))


def _kind(point: Mapping[str, float]) -> tuple:
    """What of a point changes its cost."""
    return tuple((name, value) for name, value in point.items() if name not in SAME_COST)
