"""Points of a grid: the grids that are refused, and the names of points in tables and in text."""

import numpy as np
import pytest

from cnnlesson.points import OUTCOME_COLUMNS, column_of, combinations, key_of, name_of, number, plain_grid, words


def test_the_last_name_changes_fastest():
    points = combinations({"lr": [0.1, 0.01], "seed": [0, 1]})
    assert points == [{"lr": 0.1, "seed": 0}, {"lr": 0.1, "seed": 1}, {"lr": 0.01, "seed": 0}, {"lr": 0.01, "seed": 1}]


@pytest.mark.parametrize("name", [*OUTCOME_COLUMNS, "lr", "number", "grid"])
def test_a_name_has_a_column_that_is_no_outcome(name):
    assert column_of(name) not in OUTCOME_COLUMNS
    assert name_of(column_of(name)) == name
    assert column_of(name) == (f"grid_{name}" if name in OUTCOME_COLUMNS else name)


def test_a_point_as_text_has_no_underscores_and_no_rounding_errors():
    assert words({"batch_size": 16, "lr": 0.1 + 0.2, "big": 10**15}) == "batch size 16, lr 0.3, big 1000000000000000"
    assert number(0.123456789012) == "0.123456789012"


def test_the_order_of_names_and_the_type_of_numbers_do_not_make_another_point():
    assert key_of({"lr": 0.0, "seed": 1}) == key_of({"seed": 1.0, "lr": 0})
    assert key_of({"lr": 1, "seed": 0}) != key_of({"lr": 0, "seed": 1})


def test_numbers_of_numpy_become_plain_ones():
    plain = plain_grid({"lr": np.array([0.5, 0.25]), "batch_size": (np.int64(8), 16), "seed": range(2)})
    assert plain == {"lr": [0.5, 0.25], "batch_size": [8, 16], "seed": [0, 1]}
    assert [type(value) for values in plain.values() for value in values] == [float, float, int, int, int, int]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, 'the grid is empty: give it names and values, such as {"lr": [0.1, 0.01]}'),
        ({"lr": []}, "the grid's lr must be a list of numbers, such as [0.1, 0.01], got []"),
        ({"lr": "0.1"}, "the grid's lr must be a list of numbers, such as [0.1, 0.01], got '0.1'"),
        ({"lr": 0.1}, "the grid's lr must be a list of numbers, such as [0.1, 0.01], got 0.1"),
        ({"lr": [0.1, "0.2"]}, "the grid's lr must be finite numbers, got '0.2'"),
        ({"lr": [0.1, float("nan")]}, "the grid's lr must be finite numbers, got nan"),
        ({"nesterov": [True]}, "the grid's nesterov must be finite numbers, got True"),
        ({"nesterov": np.array([True])}, "the grid's nesterov must be finite numbers, got "),
        ({"lr": [0.1], "seed": [1, 0, 1.0]}, "the grid's seed has a value twice: [1, 0, 1.0]"),
        ({"epochs": [1], "grid_epochs": [2]}, "two names of the grid would share a column of the results: epochs, "),
    ],
)
def test_a_grid_that_cannot_be_searched_is_one_line(grid, message):
    with pytest.raises(ValueError) as refused:
        plain_grid(grid)
    assert str(refused.value).startswith(message)
