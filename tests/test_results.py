"""The results table of a search, made from the records of its journals."""

from dataclasses import asdict, fields

import pytest

from cnnlesson.points import combinations, key_of
from cnnlesson.results import (
    Trial,
    at_point,
    best_point,
    grid_names,
    last_epochs,
    overview,
    results_table,
    trials_of,
    unfinished,
)
from cnnlesson.training import Epoch

LOW, HIGH = {"lr": 0.01, "seed": 0}, {"lr": 0.1, "seed": 0}


def epoch(number: int = 1, accuracy: float = 0.5, epochs: int = 2) -> dict:
    return asdict(Epoch(number, epochs, 1.0, accuracy / 2, 1.0, accuracy, 0.1, 0.1, 1.0, False))


def records(point: dict, end: str = "", time: float = 1.0, by: str = "a", epochs: int = 1) -> list[dict]:
    """What a journal has of a trial that started at `time` and ended, if it did, a second later."""
    lines = [{"start": point, "time": time, "by": by}]
    lines += [{"point": point, "epoch": epoch(number, epochs=epochs)} for number in range(1, epochs + 1)]
    return lines + ([{"point": point, "end": end, "time": time + 1, "reason": "why"}] if end else [])


def table_of(outcomes: dict[tuple[float, int], float | str]):
    """The table of trials by lr and seed: those with an accuracy have completed two epochs, the others none."""
    points = [{"lr": lr, "seed": seed} for lr, seed in outcomes]
    trials = {}
    for point, outcome in zip(points, outcomes.values(), strict=True):
        is_state = isinstance(outcome, str)
        epochs = [] if is_state else [epoch(1, accuracy=0.9), epoch(2, accuracy=outcome)]
        trials[key_of(point)] = Trial(outcome if is_state else "completed", epochs)
    return results_table(points, trials)


def state_of(*journals: tuple[list[dict], str | None]) -> Trial:
    return trials_of([LOW], journals)[key_of(LOW)]


@pytest.mark.parametrize(
    ("end", "owner", "state"),
    [
        ("", "a", "running"),
        ("", "b", "interrupted"),  # the launch that trained it is gone
        ("", None, "interrupted"),
        ("completed", None, "completed"),
        ("diverged", "b", "diverged"),
        ("failed", "a", "failed"),
        ("withdrawn", "a", "waiting"),
    ],
)
def test_the_state_of_a_trial_follows_from_its_records_and_the_owner(end, owner, state):
    trial = state_of((records(LOW, end), owner))
    assert trial.state == state
    assert len(trial.epochs) == (0 if state == "waiting" else 1)
    assert trials_of([HIGH], [(records(LOW, end), owner)]) == {key_of(HIGH): Trial()}


def test_a_trial_that_is_started_again_has_only_the_epochs_of_the_last_attempt():
    trial = state_of(([*records(LOW, "failed", epochs=3), *records(LOW, "completed", time=5, epochs=2)], None))
    assert [epoch["number"] for epoch in trial.epochs] == [1, 2]
    assert (trial.state, trial.time, trial.reason) == ("completed", 6, "why")


@pytest.mark.parametrize(
    ("counts", "other"),
    [
        (("completed", 1), ("completed", 3)),  # the first of two that have ended
        (("diverged", 1), ("completed", 3)),
        (("completed", 3), ("", 1)),  # an ended one, though another runs
        (("", 3), ("failed", 5)),  # a running one, though another has failed since
        (("", 1), ("", 3)),  # the first that runs
        (("failed", 3), ("failed", 1)),  # the last that has failed
        (("failed", 1), ("withdrawn", 3)),
    ],
)
def test_of_several_journals_the_trial_that_is_furthest_counts(counts, other):
    journals = [(records(LOW, *trial, by=by), by) for trial, by in ((counts, "a"), (other, "b"))]
    assert state_of(*journals).by == state_of(*journals[::-1]).by == "a"


def test_the_table_has_a_row_per_epoch_and_one_for_a_point_without_any():
    results = table_of({(0.1, 0): 0.6, (0.01, 0): "waiting"})
    assert grid_names(results) == ["lr", "seed"]
    assert results[["lr", "epoch", "state"]].to_numpy().tolist() == [
        [0.1, 1, "completed"], [0.1, 2, "completed"], [0.01, 0, "waiting"],
    ]  # fmt: skip
    assert last_epochs(results)["epoch"].tolist() == [2, 0]
    assert not results["diverged"].any()
    columns = list(results.columns)
    assert (columns[:3], columns[-2:]) == (["lr", "seed", "epoch"], ["state", "reason"])
    assert {field.name for field in fields(Epoch)} - set(columns) == {"number"}


def test_the_rows_of_a_point_may_have_any_value_of_a_name_that_it_lacks():
    results = table_of({(0.1, 0): 0.6, (0.01, 0): 0.5, (0.1, 1): 0.7})
    assert at_point(results, {"lr": 0.1})["seed"].tolist() == [0, 0, 1, 1]
    assert at_point(results, {"lr": 0.1, "seed": 1})["epoch"].tolist() == [1, 2]
    assert at_point(results, {"lr": 0.01})["epoch"].tolist() == [1, 2]
    assert at_point(results, {"lr": 0.5}).empty


def test_the_overview_shows_how_far_each_trial_is():
    rows = overview(table_of({(0.1, 0): 0.6, (0.01, 1): "waiting"})).to_dict("records")
    assert rows == [
        {"lr": "0.1", "seed": "0", "state": "completed", "epoch": "2 of 2", "training": "30.0%", "validation": "60.0%"},
        {"lr": "0.01", "seed": "1", "state": "waiting", "epoch": "", "training": "", "validation": ""},
    ]


def test_waiting_running_and_interrupted_points_are_unfinished():
    states = ("completed", "running", "failed", "interrupted", "diverged", "waiting")
    results = table_of({(0.1, seed): state for seed, state in enumerate(states)})
    assert [point["seed"] for point in unfinished(results)] == [1, 3, 5]
    with pytest.raises(ValueError, match=r"^3 points not ended yet, such as lr 0\.1, seed 1: run the search to its"):
        best_point(results)


def test_the_best_point_has_the_highest_accuracy_in_its_last_epoch():
    assert best_point(table_of({(0.1, 0): 0.6, (0.01, 0): 0.7, (0.001, 0): 0.7})) == {"lr": 0.01}  # the first of a tie
    assert best_point(table_of({(0.1, 0): "failed", (0.01, 0): "diverged"})) is None


def test_with_several_seeds_the_mean_counts_and_all_must_have_completed():
    outcomes = {(0.1, 0): 0.9, (0.01, 0): 0.6, (0.1, 1): 0.2, (0.01, 1): 0.6, (1.0, 0): 0.95, (1.0, 1): "failed"}
    assert best_point(table_of(outcomes)) == {"lr": 0.01}


def test_the_best_so_far_must_be_requested():
    results = table_of({(0.1, 0): "running", (0.01, 0): 0.4})
    with pytest.raises(ValueError, match=r"^1 point not ended yet"):
        best_point(results)
    assert best_point(results, allow_unfinished=True) == {"lr": 0.01}


def test_a_grid_may_have_names_of_outcomes():
    points = combinations({"epochs": [1, 2]})
    trials = {key_of(point): Trial("completed", [epoch(1, point["epochs"] / 10)]) for point in points}
    results = results_table(points, trials)
    assert grid_names(results) == ["grid_epochs"]
    assert at_point(results, {"epochs": 2})["grid_epochs"].tolist() == [2]
    assert best_point(results) == {"epochs": 2}
