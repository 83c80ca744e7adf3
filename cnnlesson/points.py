"""Points of a grid: their values, their columns in a results table, and their names in text."""

import itertools
import math
import numbers
from collections.abc import Mapping, Sequence

import numpy as np

from cnnlesson.training import Epoch

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


def words(point: Mapping[str, float]) -> str:
    """A point as text, such as "lr 0.1, batch size 16"."""
    return ", ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in point.items())


def number(value: float) -> str:
    """All digits of a value, without those that only rounding made."""
    return str(value) if isinstance(value, int) else f"{value:.12g}"


def key_of(point: Mapping[str, float]) -> tuple:
    """A point as the key of a dictionary; 0 and 0.0 are the same point."""
    return tuple(sorted(point.items()))


def combinations(grid: Mapping[str, Sequence[float]]) -> list[dict]:
    """All points of a grid; the last name changes fastest."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def plain_grid(grid: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """The grid with its values as plain numbers, also those of NumPy.

    Raises:
        ValueError: the grid is empty, or has values that are not finite numbers or are listed twice.
    """
    if not grid:
        raise ValueError('the grid is empty: give it names and values, such as {"lr": [0.1, 0.01]}')
    plain = {}
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or not len(values):
            raise ValueError(f"the grid's {name} must be a list of numbers, such as [0.1, 0.01], got {values!r}")
        for value in values:
            if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise ValueError(f"the grid's {name} must be finite numbers, got {value!r}")
        plain[name] = [value.item() if isinstance(value, np.generic) else value for value in values]
        if len({*plain[name]}) < len(values):
            raise ValueError(f"the grid's {name} has a value twice: {plain[name]}")
    if len({*map(column_of, plain)}) < len(plain):
        raise ValueError(f"two names of the grid would share a column of the results: {', '.join(plain)}")
    return plain
