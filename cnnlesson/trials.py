"""The trials of a grid search, kept by Optuna: every point of the grid ends once, whatever dies in between.

A trial of Optuna's is one attempt at one point. It waits, runs, and ends as completed, diverged, pruned or failed; or
it is interrupted, when the process that ran it is gone, and then the point gets another trial. Only the process that
launched the search writes here, so nothing is lost or cut when a worker is killed.
"""

import hashlib
import json
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import NamedTuple

import filelock
import optuna
import pandas as pd
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from cnnlesson.results import OUTCOME_COLUMNS
from cnnlesson.runtime.atomic import make_folder
from cnnlesson.training import Epoch

HEARTBEAT_SECONDS = 20  # how often a trial in a database says that it lives
GRACE_SECONDS = 120  # how long it may be silent before another machine takes it over

FIRST_WORD = b'{"op_code":'  # that a journal of Optuna's begins with

ENDED = ("completed", "diverged", "pruned", "failed")

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Trial(NamedTuple):
    """A trial that this process has claimed."""

    id: int  # in the storage
    number: int  # in its study
    point: dict  # such as {"lr": 0.1, "batch_size": 16, "weight_decay": 0.0005}


class TakenOverError(Exception):
    """This process was silent for so long that another one has taken the trial over."""


class TrialStore:
    """The trials of one study in a journal file or a PostgreSQL database.

    Args:
        storage: the path of a journal file, or the address of a database, "postgresql://user@host/database".
        name: of the study; a storage can hold several.
        points: the grid; each maps the same names to numbers.
        settings: what all trials have in common, as plain values; None takes what the study has.
    """

    def __init__(self, storage: str | os.PathLike, name: str, points: Sequence[dict], settings: Mapping | None):
        self.address = os.fspath(storage)
        self.name = name
        self.points = points
        self.settings = None if settings is None else json.loads(json.dumps(dict(settings)))
        self.is_file = "://" not in self.address
        if not self.is_file and not self.address.startswith("postgresql"):
            kind = self.address.partition("://")[0]
            raise ValueError(
                f"{kind} can give one trial to two workers: name a file, such as results/grid.journal, or "
                "postgresql://user@host/database"
            )
        self._storage = self._study = None
        self._running = set()

    # Opening

    def exists(self) -> bool:
        """Whether there is such a study already. It is not made by asking."""
        if self.is_file and not Path(self.address).exists():
            return False
        return self.name in optuna.get_all_study_names(self._open())

    def _open(self) -> optuna.storages.BaseStorage:
        if self._storage is not None:
            return self._storage
        if self.is_file:
            # The other kind of lock is a symbolic link, which a mounted Drive does not have.
            try:
                self._storage = JournalStorage(JournalFileBackend(self.address, JournalFileOpenLock(self.address)))
            except (ValueError, KeyError) as error:
                raise ValueError(f"{self.address} is not a journal of trials ({error}): name another file") from error
            return self._storage
        with _in_one_line(self.address), _experiments():
            self._storage = RDBStorage(
                self.address,
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
            )
            return self._storage

    @property
    def study(self) -> optuna.Study:
        """Optuna's own view of it. Raises ValueError where there is none yet."""
        if self._study is None:
            if not self.exists():
                raise ValueError(f"{self.address} holds no search called {self.name}: start it with run()")
            self._study = optuna.load_study(study_name=self.name, storage=self._open(), pruner=_pruner())
        return self._study

    @contextmanager
    def launch(self, retry_failed: bool) -> Iterator[list[str]]:
        """Be a launcher: queue what is missing, and get what there is to say about it.

        A file has one launcher at a time. A database can have one on each of several machines.

        Raises:
            OSError, ConnectionError: the storage cannot be reached or written.
            ValueError: it holds trials of other settings, or is no storage of trials.
        """
        if self.is_file:
            with self._only_launcher(), _in_one_line(self.address):
                notes = self._repair()
                self._create()
                yield notes + self._prepare(retry_failed)
        else:
            with _in_one_line(self.address):
                self._create()
                with self._database_lock():
                    notes = self._prepare(retry_failed)
                with self._heartbeat():
                    yield notes

    @contextmanager
    def _only_launcher(self) -> Iterator[None]:
        """Hold the lock of the journal. It is in this machine's folder for temporary files, as a mounted Drive has no
        locks, and the system lets it go when the process dies."""
        lock = self._lock()
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise OSError(
                f"another process is running the search in {self.address}: wait until it ends, or stop it "
                "(it may be another notebook)"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _lock(self) -> filelock.FileLock:
        digest = hashlib.sha256(os.path.realpath(self.address).encode()).hexdigest()[:16]
        return filelock.FileLock(Path(tempfile.gettempdir()) / f"cnnlesson-{digest}.lock")

    def is_launched(self) -> bool | None:
        """Whether a process of this machine runs the search now; None with a database, where it cannot be told."""
        if not self.is_file:
            return None
        try:
            self._lock().acquire(timeout=0).lock.release()
        except filelock.Timeout:
            return True
        return False

    def _repair(self) -> list[str]:
        """Cut off the last line of the journal where a process died while it wrote it, and free Optuna's own lock."""
        path = Path(self.address)
        make_folder(path.parent)
        self._storage = self._study = None  # what was read before may be what is cut off now
        content = path.read_bytes() if path.exists() else b""
        if not content.startswith(FIRST_WORD[: len(content)]):
            raise ValueError(f"{path} is not a journal of trials: name another file")
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)
        Path(f"{path}.lock").unlink(missing_ok=True)  # nobody else writes, so who left it is dead
        return [f"the last line of {path} was cut in the middle and is dropped"] if whole < len(content) else []

    def _create(self) -> None:
        self._study = optuna.create_study(
            study_name=self.name,
            storage=self._open(),
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(seed=0),  # it never samples: the points are queued
            pruner=_pruner(),
        )

    @contextmanager
    def _database_lock(self) -> Iterator[None]:
        """Let one launcher at a time queue trials. PostgreSQL frees the lock when the connection is gone."""
        import sqlalchemy

        key = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:7])
        with self._storage.engine.begin() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            yield

    @contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Say every now and then that the claimed trials live."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT_SECONDS):
                for trial_id in list(self._running):
                    try:
                        self._storage.record_heartbeat(trial_id)
                    except Exception:  # the network is down: the next write that matters says so
                        break

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    # Queueing

    def _prepare(self, retry_failed: bool) -> list[str]:
        """Check that the study is ours, interrupt the trials of dead processes, and queue points that lack a trial."""
        notes = self._check_settings() + self._check_grid()
        self._give_up_dead()
        if retry_failed:
            failed = [trial.number for trial in self._trials() if self._state(trial) == "failed"]
            self.study.set_user_attr("retried", [*self._retried(), *failed])
        known = [trial.params for trial in self._trials() if self._state(trial) != "interrupted"]
        for point in self.points:
            if point not in known:
                fixed = {name: optuna.distributions.FloatDistribution(value, value) for name, value in point.items()}
                self.study.add_trial(
                    optuna.create_trial(
                        state=TrialState.WAITING,
                        params={name: float(value) for name, value in point.items()},
                        distributions=fixed,
                    )
                )
        return notes

    def _check_settings(self) -> list[str]:
        kept = self.study.user_attrs.get("settings")
        if kept is None:
            self.study.set_user_attr("settings", self.settings or {})
            return []
        if self.settings is not None and kept != self.settings:
            names = sorted(kept.keys() | self.settings.keys())
            different = [
                f"{name} {kept.get(name)}, now {self.settings.get(name)}"
                for name in names
                if kept.get(name) != self.settings.get(name)
            ]
            raise ValueError(
                f"{self.address} holds trials of other settings ({'; '.join(different)}): name another storage"
            )
        return []

    def _check_grid(self) -> list[str]:
        grid = {name: list(dict.fromkeys(float(point[name]) for point in self.points)) for name in self.points[0]}
        grids = self.study.user_attrs.get("grids", [])
        if any(_same_values(grid, known) for known in grids):
            return []
        if grids and grids[-1].keys() != grid.keys():
            raise ValueError(
                f"{self.address} holds trials over {', '.join(grids[-1])}, now the grid is over {', '.join(grid)}: "
                "name another storage"
            )
        self.study.set_user_attr("grids", [*grids, grid])
        if not grids:
            return []
        kept = grids[-1]
        changes = [
            f"{name} {_numbers(kept[name])}, now {_numbers(grid[name])}"
            for name in grid
            if set(kept[name]) != set(grid[name])
        ]
        return [f"the grid has changed ({'; '.join(changes)}): what is finished of the old one stays"]

    def _give_up_dead(self) -> None:
        """Interrupt the trials whose process is gone."""
        if self.is_file:  # there is one launcher, which is this process, and its workers ended with the one before
            for trial in self._trials():
                if trial.state == TrialState.RUNNING and trial._trial_id not in self._running:
                    self._end(trial._trial_id, TrialState.FAIL)
            return
        with _experiments():
            optuna.storages.fail_stale_trials(self.study)

    def queue_again(self) -> None:
        """Queue the points of trials that died on other machines since the launch."""
        if not self.is_file:
            with self._database_lock():
                self._prepare(retry_failed=False)

    # Running

    def claim(self) -> Trial | None:
        """Take a waiting trial of the grid, in the order of the points; None where none waits.

        Of all processes that ask at the same time, one gets it: the storage itself decides who is first.
        """
        waiting = [trial for trial in self._trials() if trial.state == TrialState.WAITING]
        for point in self.points:
            for trial in waiting:
                if trial.params == point and self._start(trial._trial_id):
                    return Trial(trial._trial_id, trial.number, point)
        return None

    def _start(self, trial_id: int) -> bool:
        if not self.is_file:  # first: a running trial that was never heard of would never be found dead
            self._storage.record_heartbeat(trial_id)
        try:
            if not self._storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                return False
        except UpdateFinishedTrialError:
            return False
        self._running.add(trial_id)
        return True

    def add(self, trial: Trial, epoch: Epoch) -> None:
        """Keep an epoch of a claimed trial. Raises TakenOverError."""
        try:
            self._storage.set_trial_user_attr(trial.id, f"epoch {epoch.number}", asdict(epoch))
            self._storage.set_trial_intermediate_value(trial.id, epoch.number, epoch.val_accuracy)
        except UpdateFinishedTrialError as error:
            self._running.discard(trial.id)
            raise TakenOverError from error

    def should_prune(self, trial: Trial) -> bool:
        """Whether successive halving gives the trial up, by its validation accuracy among those of the others."""
        return self.study.pruner.prune(self.study, self._storage.get_trial(trial.id))

    def complete(self, trial: Trial, last: Epoch) -> None:
        """End a trial whose last epoch is `last`."""
        if last.diverged:
            self._end(trial.id, TrialState.PRUNED)
        else:
            self._end(trial.id, TrialState.COMPLETE, [last.val_accuracy])

    def prune(self, trial: Trial) -> None:
        self._end(trial.id, TrialState.PRUNED)

    def fail(self, trial: Trial, reason: str) -> None:
        """End a trial that cannot be finished; it is not run again unless somebody asks for it."""
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(trial.id, "reason", reason)
        self._end(trial.id, TrialState.FAIL)

    def interrupt(self, trial: Trial) -> None:
        """End a trial whose process is gone, and queue its point again."""
        self._end(trial.id, TrialState.FAIL)
        with self._database_lock() if not self.is_file else nullcontext():
            self._prepare(retry_failed=False)

    def _end(self, trial_id: int, state: TrialState, values: list[float] | None = None) -> None:
        self._running.discard(trial_id)
        with suppress(UpdateFinishedTrialError):  # another machine has taken it over, and ends it
            self._storage.set_trial_state_values(trial_id, state, values)

    # Looking

    def states(self) -> list[str]:
        """The state of each point, in their order: waiting, running, or one of `ENDED`."""
        return [self._state(trial) if trial else "waiting" for trial in self._current()]

    def table(self) -> pd.DataFrame:
        """A row for each epoch of each point that has been started.

        Columns: the names of the grid, those of `cnnlesson.training.Epoch` (its number as epoch), state and reason. A
        trial without an epoch has one row, without figures, if it failed.
        """
        rows = []
        for point, trial in zip(self.points, self._current(), strict=True):
            if trial is None:
                continue
            outcome = {"state": self._state(trial), "reason": trial.user_attrs.get("reason", "")}
            epochs = _epochs(trial)
            for epoch in epochs:
                rows.append(point | epoch | {"epoch": epoch["number"]} | outcome)
            if not epochs and outcome["state"] == "failed":
                rows.append(point | outcome | {"epoch": 0, "diverged": False})
        return pd.DataFrame(rows, columns=[*self.points[0], *OUTCOME_COLUMNS])

    def overview(self) -> pd.DataFrame:
        """A row for each point, in words: its state, and how far its last trial is."""
        rows = []
        for point, trial in zip(self.points, self._current(), strict=True):
            words = {"state": "waiting", "epoch": "", "training": "", "validation": ""}
            if trial is not None:
                words["state"] = self._state(trial)
            if trial is not None and (epochs := _epochs(trial)):
                last = epochs[-1]
                words["epoch"] = f"{last['number']} of {last['epochs']}"
                words["training"] = f"{last['train_accuracy']:.1%}"
                words["validation"] = f"{last['val_accuracy']:.1%}"
            rows.append({name: f"{value:g}" for name, value in point.items()} | words)
        return pd.DataFrame(rows)

    def _current(self) -> list[FrozenTrial | None]:
        """The trial of each point that counts: the one that was not interrupted, or the last."""
        trials = self._trials()
        current = []
        for point in self.points:
            of_point = [trial for trial in trials if trial.params == point]
            alive = [trial for trial in of_point if self._state(trial) != "interrupted"]
            current.append((alive or of_point or [None])[-1])
        return current

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _retried(self) -> list[int]:
        return self.study.user_attrs.get("retried", [])

    def _state(self, trial: FrozenTrial) -> str:
        if trial.state == TrialState.PRUNED:
            epochs = _epochs(trial)
            return "diverged" if epochs and epochs[-1]["diverged"] else "pruned"
        if trial.state == TrialState.FAIL:
            has_ended = "reason" in trial.user_attrs and trial.number not in self._retried()
            return "failed" if has_ended else "interrupted"
        return {TrialState.COMPLETE: "completed", TrialState.RUNNING: "running", TrialState.WAITING: "waiting"}[
            trial.state
        ]


def saved_points(storage: str | os.PathLike, name: str) -> list[dict]:
    """The points of all grids that a search was run with.

    Raises:
        ValueError: the storage has no such search.
    """
    points = []
    for grid in TrialStore(storage, name, [], None).study.user_attrs["grids"]:
        values = [[int(value) if value.is_integer() else value for value in axis] for axis in grid.values()]
        of_grid = [dict(zip(grid, point, strict=True)) for point in product(*values)]
        points += [point for point in of_grid if point not in points]
    return points


def _epochs(trial: FrozenTrial) -> list[dict]:
    """The epochs of a trial as `Epoch` has them, in order."""
    return [trial.user_attrs[f"epoch {number}"] for number in sorted(trial.intermediate_values)]


def _pruner() -> optuna.pruners.BasePruner:
    """After 1, 3, 9, ... epochs, the best third goes on."""
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)


def _same_values(grid: dict, other: dict) -> bool:
    """Whether two grids have the same points, in whatever order."""
    return grid.keys() == other.keys() and all(set(grid[name]) == set(other[name]) for name in grid)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


@contextmanager
def _experiments() -> Iterator[None]:
    """Optuna calls its heartbeat experimental, and warns of it each time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@contextmanager
def _in_one_line(address: str) -> Iterator[None]:
    """Say in one line that a database cannot be reached or written, or that a file cannot."""
    import sqlalchemy.exc

    try:
        yield
    except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError, ModuleNotFoundError) as error:
        cause = error.__cause__ or error
        if isinstance(error, ModuleNotFoundError) and error.name != "psycopg2":
            raise
        first_line = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
        raise ConnectionError(
            f"the database {address.rpartition('@')[2]} cannot be used ({first_line}): check its address, and that it "
            "runs and can be written; what is finished is kept"
        ) from error
    except OSError as error:
        if error.errno is None:
            raise  # one of ours, and in one line already
        raise OSError(
            f"the journal {address} cannot be written ({error.strerror}): free some room on that disk, or name another "
            "storage; what is finished is kept"
        ) from error
