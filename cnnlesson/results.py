"""The results table of a search, a row per trial and epoch: what it says, and which point is best."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from cnnlesson.points import OUTCOME_COLUMNS, column_of, key_of, name_of, number, words
from cnnlesson.runtime.display import count

ENDED = ("completed", "diverged", "failed")  # states of a point
NOT_ENDED = ("running", "interrupted", "waiting")


@dataclass
class Trial:
    """What is known of one point."""

    state: str = "waiting"  # or running, interrupted, or one of ENDED
    epochs: list[dict] = field(default_factory=list)  # of the last attempt
    reason: str = ""  # of a failed trial
    time: float = 0.0  # when it started or ended
    by: str = ""  # the launch that trains or trained it


def trials_of(points: Iterable[Mapping], journals: Iterable[tuple[Sequence[dict], str | None]]) -> dict[tuple, Trial]:
    """What journals know of each point, by `key_of(point)`.

    If several journals have a point, the first completed or diverged trial counts, else the first that is running, else
    the one that was started or has failed last.

    Args:
        points: the grid.
        journals: the records of each, as `cnnlesson.search.journal` describes them, and the launch that owns it now.
    """
    trials = {key_of(point): Trial() for point in points}
    for records, owner in journals:
        for key, trial in _replay(records, owner).items():
            if key in trials and _rank(trial) > _rank(trials[key]):
                trials[key] = trial
    return trials


def _rank(trial: Trial) -> tuple:
    first_counts = {"completed": 2, "diverged": 2, "running": 1}.get(trial.state)
    return (first_counts, -trial.time) if first_counts else (0, trial.time)


def _replay(records: Sequence[dict], owner: str | None) -> dict[tuple, Trial]:
    trials = {}
    for record in records:
        if "start" in record:
            trials[key_of(record["start"])] = Trial("running", time=record["time"], by=record["by"])
        elif "point" in record and (trial := trials.get(key_of(record["point"]))):
            if "epoch" in record:
                trial.epochs.append(record["epoch"])
            elif record["end"] == "withdrawn":
                del trials[key_of(record["point"])]
            else:
                trial.state, trial.reason, trial.time = record["end"], record.get("reason", ""), record["time"]
    for trial in trials.values():
        if trial.state not in ENDED and trial.by != owner:
            trial.state = "interrupted"
    return trials


def grid_names(results: pd.DataFrame) -> list[str]:
    """The columns that make a point of the grid, such as lr, batch_size and weight_decay."""
    return [column for column in results.columns if column not in OUTCOME_COLUMNS]


def last_epochs(results: pd.DataFrame) -> pd.DataFrame:
    """The last row of each trial, in the order of the table."""
    return results.groupby(grid_names(results), sort=False).tail(1)


def at_point(results: pd.DataFrame, point: Mapping[str, float]) -> pd.DataFrame:
    """The rows of one point; a name that `point` lacks, such as the seed, may have any value."""
    wanted = pd.Series({column_of(name): value for name, value in point.items()})
    return results[(results[list(wanted.index)] == wanted).all(axis=1)]


def results_table(points: Iterable[Mapping], trials: Mapping[tuple, Trial]) -> pd.DataFrame:
    """A row per epoch of each point, or one row with epoch 0 for a point without an epoch."""
    rows = []
    for point in points:
        trial = trials[key_of(point)]
        columns = {column_of(name): value for name, value in point.items()}
        for epoch in trial.epochs or [{"number": 0, "diverged": False}]:
            outcome = {"epoch": epoch["number"], "state": trial.state, "reason": trial.reason}
            rows.append({**epoch, **columns, **outcome})
    return pd.DataFrame(rows, columns=[*columns, *OUTCOME_COLUMNS])


def overview(results: pd.DataFrame) -> pd.DataFrame:
    """A row per point, as text: its state, and how far its trial is."""
    rows = []
    for trial in last_epochs(results).to_dict("records"):
        has_epoch = trial["epoch"] > 0
        rows.append(
            {name_of(column): number(trial[column]) for column in grid_names(results)}
            | {"state": trial["state"], "epoch": f"{trial['epoch']} of {trial['epochs']:.0f}" if has_epoch else ""}
            | {"training": f"{trial['train_accuracy']:.1%}" if has_epoch else ""}
            | {"validation": f"{trial['val_accuracy']:.1%}" if has_epoch else ""}
        )
    return pd.DataFrame(rows)


def unfinished(results: pd.DataFrame) -> list[dict]:
    """The points of a table that have not ended: those waiting, running or interrupted."""
    columns = grid_names(results)
    last = last_epochs(results)
    points = last.loc[~last["state"].isin(ENDED), columns].to_dict("records")
    return [{name_of(column): value for column, value in point.items()} for point in points]


def best_point(results: pd.DataFrame, allow_unfinished: bool = False) -> dict | None:
    """The point whose trial completed with the highest validation accuracy, or None if no trial completed.

    With several seeds per point, all of them must have completed, their mean counts, and the seed is not part of the
    point. The first in the table wins a tie.

    Raises:
        ValueError: a point has not ended. The best of an unfinished table could be another one tomorrow; it is
            returned only with `allow_unfinished`.
    """
    missing = [] if allow_unfinished else unfinished(results)
    if missing:
        raise ValueError(
            f"{count(len(missing), 'point')} not ended yet, such as {words(missing[0])}: "
            "run the search to its end, or ask for the best so far with allow_unfinished=True"
        )
    columns = [column for column in grid_names(results) if column != "seed"]
    last = last_epochs(results).assign(completed=lambda trials: trials["state"] == "completed")
    means = last.groupby(columns, sort=False, as_index=False).agg({"val_accuracy": "mean", "completed": "all"})
    means = means[means["completed"]].reset_index(drop=True)
    if means.empty:
        return None
    best = means.iloc[[means["val_accuracy"].idxmax()]][columns].to_dict("records")[0]
    return {name_of(column): value for column, value in best.items()}
