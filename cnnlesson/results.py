"""What the table of a search's results says: a row a trial and epoch, as `cnnlesson.search.GridSearch.run` gives it."""

from collections.abc import Mapping

import pandas as pd

from cnnlesson.training import Epoch

# The columns that are not names of the grid.
OUTCOME_COLUMNS = [
    *("epoch" if name == "number" else name for name in Epoch.__dataclass_fields__),
    *("state", "reason"),
]


def grid_names(results: pd.DataFrame) -> list[str]:
    """The columns that make a point of the grid, such as lr, batch_size and weight_decay."""
    return [name for name in results.columns if name not in (*OUTCOME_COLUMNS, "model")]


def last_epochs(results: pd.DataFrame) -> pd.DataFrame:
    """The last row of each trial, in the order of the table."""
    return results.groupby(grid_names(results), sort=False).tail(1)


def at_point(results: pd.DataFrame, point: Mapping[str, float]) -> pd.DataFrame:
    """The rows of one point; a name that `point` lacks, such as the seed, may have any value."""
    return results[(results[list(point)] == pd.Series(point)).all(axis=1)]


def best_point(results: pd.DataFrame) -> dict | None:
    """The point whose trial completed with the highest validation accuracy, or None where none completed.

    Where points were tried with several seeds, all of them must have completed, their mean counts, and the seed is not
    part of the point. The first in the table wins a tie.
    """
    names = [name for name in grid_names(results) if name != "seed"]
    last = last_epochs(results).assign(completed=lambda trials: trials["state"] == "completed")
    means = last.groupby(names, sort=False, as_index=False).agg({"val_accuracy": "mean", "completed": "all"})
    means = means[means["completed"]].reset_index(drop=True)
    if means.empty:
        return None
    best = means.iloc[[means["val_accuracy"].idxmax()]]
    return best[names].to_dict("records")[0]
