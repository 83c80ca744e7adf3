"""Differences that count as real, against simulated tables whose truth is known, and a published example."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cnnlesson.noise import differences, like_best, mcnemar, right_images, smallest_difference, standard_error, verdict
from cnnlesson.training import evaluate

RATES, BATCH_SIZES = (0.1, 0.01, 0.001), (16, 32, 64)
POINTS = [(lr, batch_size) for lr in RATES for batch_size in BATCH_SIZES]
HARDNESS = np.random.default_rng(0).beta(
    2, 1.5, 300
)  # of each image: the share of equally good networks that are right


def trial(point: tuple, right: np.ndarray, seed: int = 0, state: str = "completed") -> dict:
    lr, batch_size = point
    figures = {"epoch": 5, "epochs": 5, "val_accuracy": right.mean(), "diverged": state == "diverged"}
    bits = {"val_images": len(right), "val_right": np.packbits(right).tobytes().hex()}
    return {"lr": lr, "batch_size": batch_size, "seed": seed, "state": state, "reason": "", **figures, **bits}


def simulated(random: np.random.Generator, num_seeds: int, spread: float, better: float = 0.0) -> pd.DataFrame:
    """Nine equally good points, but the first, which is better; a seed changes a network's accuracy by `spread`."""
    rows = []
    for point in POINTS:
        for seed in range(num_seeds):
            shift = random.normal(0, spread) + (better if point == POINTS[0] else 0)
            rows.append(trial(point, random.random(len(HARDNESS)) < HARDNESS + shift, seed))
    table = pd.DataFrame(rows)
    return table if num_seeds > 1 else table.drop(columns="seed")


@pytest.mark.parametrize("num_tables", [100, pytest.param(1000, marks=pytest.mark.thorough)])
@pytest.mark.parametrize(("num_seeds", "spread"), [(1, 0.0), (3, 0.02)], ids=["images", "seeds"])
def test_at_most_5_percent_of_tables_of_equal_points_have_a_difference(num_seeds, spread, num_tables):
    random = np.random.default_rng(1)
    tables = (simulated(random, num_seeds, spread) for _ in range(num_tables))
    wrong = sum((differences(table)["p"] < 0.05).any() for table in tables)
    assert wrong <= 0.05 * num_tables


@pytest.mark.parametrize(("num_seeds", "spread"), [(1, 0.0), (3, 0.02)], ids=["images", "seeds"])
def test_a_point_that_is_much_better_is_told_apart_from_all_others(num_seeds, spread):
    random = np.random.default_rng(2)
    found = sum(like_best(differences(simulated(random, num_seeds, spread, better=0.25))) == [] for _ in range(20))
    assert found >= 18


def test_mcnemar_agrees_with_a_published_example():
    # Agresti, "Categorical Data Analysis" (2002), table 10.1: 150 and 86 voters changed their mind, 1,364 did not. His
    # chi-squared is 17.36 with one degree of freedom, so p is about 0.00003.
    first = np.repeat([True, True, False, False], [794, 150, 86, 570])
    second = np.repeat([True, False, True, False], [794, 150, 86, 570])
    assert mcnemar(first, second) == pytest.approx(3.1e-5, rel=0.25)
    assert mcnemar(first, second) == mcnemar(second, first)
    # By hand: of 8 images on which only one is right, 1 or fewer, or 7 or more: 2 (1 + 8) / 256.
    assert mcnemar(np.arange(10) < 7, np.arange(10) == 7) == pytest.approx(18 / 256)
    assert mcnemar(first, first) == 1


def test_the_standard_error_is_the_spread_over_random_sets_of_images():
    random = np.random.default_rng(0)
    accuracies = (random.random((20_000, 500)) < 0.4).mean(axis=1)
    assert standard_error(0.4, 500) == pytest.approx(accuracies.std(), rel=0.02)


def test_the_bits_of_evaluate_are_the_images_that_are_right():
    torch.manual_seed(0)
    labels = torch.randint(0, 2, (21,))
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    images = torch.randn(21, 3, 1, 1)
    score = evaluate(model, [(images[:16], labels[:16]), (images[16:], labels[16:])])
    right = right_images(score.right, 21)
    assert right.tolist() == (model(images).argmax(dim=1) == labels).tolist()
    assert right.mean() == score.accuracy
    assert (score.num_images, score.num_batches) == (21, 2)


def test_each_difference_is_from_the_best_point_in_the_order_of_the_table():
    right = np.arange(200) < 100
    rows = [trial(POINTS[0], right), trial(POINTS[1], np.arange(200) < 160), trial(POINTS[2], np.arange(200) < 150)]
    table = differences(pd.DataFrame(rows).drop(columns="seed"))
    assert table[["lr", "batch_size"]].to_numpy().tolist() == [[0.1, 16], [0.1, 64]]
    assert table["difference"].tolist() == pytest.approx([0.3, 0.05])
    # 10 images on which only the best is right: 2 / 2^10; there are three pairs of points.
    assert table["p"].tolist() == pytest.approx([3 * 2 / 2**60, 3 * 2 / 2**10])


def test_points_that_have_not_completed_do_not_take_part():
    right = np.arange(200) < 100
    rows = [
        trial(POINTS[0], right),
        trial(POINTS[1], right, state="diverged"),
        trial(POINTS[2], right, state="running"),
    ]
    assert differences(pd.DataFrame(rows).drop(columns="seed")).empty
    # Of one point, a seed has diverged: the mean of the others would look better than the point is.
    rows = [trial(point, right, seed) for point in POINTS[:3] for seed in (0, 1)]
    rows[-1]["state"] = "diverged"
    assert len(differences(pd.DataFrame(rows))) == 1
    assert differences(pd.DataFrame(rows[-1:])).empty
    assert verdict(pd.DataFrame(rows[-1:])) == ""


def test_seeds_that_agree_exactly_are_no_error():
    right = {point: np.arange(200) < number for point, number in zip(POINTS[:3], (90, 90, 80), strict=True)}
    rows = [trial(point, right[point], seed) for point in right for seed in (0, 1)]
    assert differences(pd.DataFrame(rows))["p"].tolist() == [1, 0]


def test_what_is_said_of_a_table():
    right = [np.arange(200) < number for number in (160, 157, 100, 80)]
    table = pd.DataFrame([trial(*each) for each in zip(POINTS[:4], right, strict=True)]).drop(columns="seed")
    assert verdict(table) == (
        "1 of the 3 other points cannot be told apart from lr 0.1, batch size 16 with 200 validation images and one "
        "seed: lr 0.1, batch size 32."
    )
    assert smallest_difference(differences(table)) == pytest.approx((3 / 200 + 60 / 200) / 2)
    assert verdict(table.iloc[:2]) == (
        "None of the others can be told apart from lr 0.1, batch size 16 with 200 validation images and one seed: "
        "lr 0.1, batch size 32."
    )
    assert math.isnan(smallest_difference(differences(table.iloc[:2])))
    assert verdict(table.iloc[[0, 2, 3]]) == (
        "lr 0.1, batch size 16 is better than every other point by more than noise, with 200 validation images and one "
        "seed."
    )
    assert verdict(table.iloc[:1]) == ""
    for bits in ("", math.nan):
        assert verdict(table.assign(val_right=bits)).startswith("The table does not tell")
    assert verdict(table.drop(columns=["val_right", "val_images"])).startswith("The table does not tell")
