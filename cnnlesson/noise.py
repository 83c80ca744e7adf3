"""How sure a results table is: the standard error of an accuracy, and the points that cannot be told apart."""

import math

import numpy as np
import pandas as pd
from scipy.stats import binomtest, t

from cnnlesson.points import name_of, words
from cnnlesson.results import at_point, best_point, grid_names, last_epochs
from cnnlesson.runtime.display import count

LEVEL = 0.05  # at most this share of tables of equally good points has a difference that counts as real


def standard_error(accuracy: float, num_images: int) -> float:
    """The standard deviation of an accuracy over random sets of `num_images` images: √(p (1 − p) / n)."""
    return math.sqrt(accuracy * (1 - accuracy) / num_images)


def right_images(bits: str, num_images: int) -> np.ndarray:
    """Which images were classified correctly, bool (num_images,), from `Score.right` or the column val_right."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))[:num_images].astype(bool)


def mcnemar(right: np.ndarray, other: np.ndarray) -> float:
    """The exact p-value of McNemar's test: could two networks that are right on these images be equally good?

    Only the images on which exactly one of the two is right tell them apart. For equally good networks each of these
    goes to either of them with probability 1/2.

    Args:
        right, other: bool (N,), the images on which either network is right.
    """
    only_one, only_other = int((right & ~other).sum()), int((other & ~right).sum())
    return binomtest(only_one, only_one + only_other).pvalue if only_one + only_other else 1.0


def differences(results: pd.DataFrame) -> pd.DataFrame:
    """How far each completed point is below the best one, and whether that can be noise.

    With one trial per point, McNemar's test compares two trained networks, by the images on which only one is right.
    With several seeds, Student's t-test compares two points, by the spread of the seeds. Either p-value allows for the
    number of pairs of points: of many equally good points, the best is the luckiest.

    Returns:
        A row per completed point but the best, in the order of the table. The columns are those of the grid without
        the seed; difference, of the (mean) validation accuracies after the last epoch, between 0 and 1; and p, which is
        NaN if the table lacks val_right.
    """
    names = [name for name in grid_names(results) if name != "seed"]
    best = best_point(results, allow_unfinished=True)
    if best is None:
        return pd.DataFrame(columns=[*names, "difference", "p"])
    last = last_epochs(results)
    by_point = last.groupby(names, sort=False)
    last = last[by_point["state"].transform(lambda states: (states == "completed").all())]
    at_best = at_point(last, best)
    others = {key: trials for key, trials in last.groupby(names, sort=False) if key != tuple(at_best[names].iloc[0])}
    # Three seeds say little about the spread at one point, so that of all points counts.
    deviations = last["val_accuracy"] - last.groupby(names)["val_accuracy"].transform("mean")
    degrees = len(last) - len(others) - 1
    variance = (deviations**2).sum() / degrees if degrees else None
    num_pairs = math.comb(len(others) + 1, 2)
    mean = at_best["val_accuracy"].mean()
    rows = []
    for key, trials in others.items():
        difference = mean - trials["val_accuracy"].mean()
        if variance is None:
            p = _p_of_images(at_best.iloc[0], trials.iloc[0])
        else:
            error = math.sqrt(variance * (1 / len(at_best) + 1 / len(trials)))
            p = 2 * t.sf(difference / error, degrees) if error else float(difference == 0)
        rows.append([*key, difference, p if math.isnan(p) else min(1.0, num_pairs * p)])
    return pd.DataFrame(rows, columns=[*names, "difference", "p"])


def _p_of_images(trial: pd.Series, other: pd.Series) -> float:
    if not all(isinstance(one.get("val_right"), str) and one["val_right"] for one in (trial, other)):
        return math.nan
    return mcnemar(*(right_images(one["val_right"], int(one["val_images"])) for one in (trial, other)))


def like_best(table: pd.DataFrame) -> list[dict]:
    """The points of a table of `differences` that cannot be told apart from the best one."""
    alike = table[~(table["p"] < LEVEL)].drop(columns=["difference", "p"])
    return [{name_of(column): value for column, value in point.items()} for point in alike.to_dict("records")]


def smallest_difference(table: pd.DataFrame) -> float:
    """About the smallest of the `differences` that counts as real; NaN if none does.

    It is the middle between the largest difference that does not count and the smallest that does.
    """
    is_real = table["p"] < LEVEL
    if not is_real.any():
        return math.nan
    real, noise = table["difference"][is_real].min(), table["difference"][~is_real].max()
    return real if pd.isna(noise) else (real + noise) / 2


def verdict(results: pd.DataFrame) -> str:
    """In one or two sentences, which points the best one can be told apart from."""
    best, table = best_point(results, allow_unfinished=True), differences(results)
    if best is None or table.empty:
        return ""
    seeds = results["seed"].nunique() if "seed" in results else 1
    images = last_epochs(results)["val_images"].max() if "val_images" in results else 0
    by = count(seeds, "seed") if seeds > 1 else f"{count(int(images), 'validation image')} and one seed"
    if table["p"].isna().any():
        return "The table does not tell how much of a difference is noise: it lacks the images that were right."
    alike = like_best(table)
    if not alike:
        return f"{words(best)} is better than every other point by more than noise, with {by}."
    named = "; ".join(map(words, alike[:3])) + ("; ..." if len(alike) > 3 else "")
    others = "None of the others" if len(alike) == len(table) else f"{len(alike)} of the {len(table)} other points"
    verb = "can" if len(alike) == len(table) else "cannot"
    return f"{others} {verb} be told apart from {words(best)} with {by}: {named}."
