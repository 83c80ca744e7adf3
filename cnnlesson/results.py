"""What the results of a search mean: a table with a row per trial and epoch, as `cnnlesson.search.GridSearch` returns it."""

from collections.abc import Mapping

import pandas as pd

from cnnlesson.training import Epoch

ENDED = ("completed", "diverged", "failed")

# The columns of a results table that are not names of the grid.
OUTCOME_COLUMNS = [
    *("epoch" if name == "number" else name for name in Epoch.__dataclass_fields__),
    *("state", "reason"),
]


def column_of(name: str) -> str:
    """The column of a grid's name: the name itself, or such as "grid_epochs" if an outcome's column has that name."""
    return f"grid_{name}" if name in OUTCOME_COLUMNS else name


def name_of(column: str) -> str:
    """The grid's name that a column holds, the inverse of `column_of`."""
    name = column.removeprefix("grid_")
    return name if name in OUTCOME_COLUMNS else column


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
            f"{len(missing)} {'point has' if len(missing) == 1 else 'points have'} not ended, such as {words(missing[0])}: "
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


def words(point: Mapping[str, float]) -> str:
    """A point as text, such as "lr 0.1, batch size 16"."""
    return ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in point.items())


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.12g}"
