"""The figures of the lesson. Each draws on `ax`, or on a new figure, and returns it; each has a twin in words."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from cnnlesson.training import Epoch

# Two colours of Okabe and Ito's palette ("Color universal design", 2008), which colour-blind readers tell apart.
TRAIN_COLOUR = "#E69F00"
VAL_COLOUR = "#0072B2"


def plot_history(history: Sequence[Epoch], ax: Axes | None = None) -> Axes:
    """Training and validation accuracy over the epochs."""
    ax = ax or _new_axes()
    numbers = [epoch.number for epoch in history]
    train = [100 * epoch.train_accuracy for epoch in history]
    validation = [100 * epoch.val_accuracy for epoch in history]
    ax.plot(numbers, train, "o--", color=TRAIN_COLOUR, label="training")
    ax.plot(numbers, validation, "o-", color=VAL_COLOUR, label="validation")
    ax.set_xlabel("epoch")
    ax.set_ylabel("accuracy (%)")
    ax.set_ylim(bottom=0)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax


def history_text(history: Sequence[Epoch]) -> str:
    """The facts of `plot_history`, a line an epoch."""
    return "\n".join(
        f"epoch {epoch.number}: training {epoch.train_accuracy:.1%}, validation {epoch.val_accuracy:.1%}"
        for epoch in history
    )


def plot_grid(results: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """A heat map of validation accuracy over learning rate and batch size.

    Args:
        results: a row a trial, with the columns lr, batch_size, val_accuracy and diverged, each (lr, batch_size) once.
    """
    accuracy, words = _grid(results)
    ax = ax or _new_axes()
    image = ax.imshow(100 * accuracy, cmap="cividis", vmin=0, aspect="auto")
    ax.set_facecolor("lightgrey")  # shows where a trial diverged
    for row, lr in enumerate(accuracy.index):
        for column, batch_size in enumerate(accuracy.columns):
            is_dark = 100 * accuracy.loc[lr, batch_size] < image.norm.vmax / 2
            colour = "white" if is_dark else "black"
            ax.text(column, row, words.loc[lr, batch_size], ha="center", va="center", color=colour, fontsize=13)
    ax.set_xticks(range(accuracy.shape[1]), accuracy.columns)
    ax.set_yticks(range(accuracy.shape[0]), [f"{lr:g}" for lr in accuracy.index])
    ax.set_xlabel("batch size")
    ax.set_ylabel("learning rate")
    ax.figure.colorbar(image, ax=ax, label="validation accuracy (%)")
    return ax


def grid_text(results: pd.DataFrame) -> str:
    """The facts of `plot_grid`, as a table."""
    _, words = _grid(results)
    words.index = [f"{lr:g}" for lr in words.index]
    words = words.rename_axis(index=None, columns="lr \\ batch size")
    return words.to_string()


def _grid(results: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy, not a number where a trial diverged, and what to write in each cell: learning rate by batch size."""
    accuracy = results["val_accuracy"].where(~results["diverged"])
    words = accuracy.map("{:.1%}".format, na_action="ignore").where(~results["diverged"], "diverged")
    table = results.assign(accuracy=accuracy, words=words).pivot(index="lr", columns="batch_size")
    table = table.sort_index(ascending=False)
    return table["accuracy"], table["words"].fillna("")


def plot_weight_decay(results: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Training and validation accuracy of one point of the grid, for each weight decay it was trained with.

    Args:
        results: a row a trial, with the columns weight_decay, train_accuracy, val_accuracy and diverged.
    """
    results = results.sort_values("weight_decay")
    ax = ax or _new_axes()
    places = range(len(results))
    for column, colour, shift, name in (
        ("train_accuracy", TRAIN_COLOUR, -0.2, "training"),
        ("val_accuracy", VAL_COLOUR, 0.2, "validation"),
    ):
        heights = (100 * results[column]).where(~results["diverged"], 0)  # no bar where it diverged
        bars = ax.bar([place + shift for place in places], heights, width=0.38, color=colour, label=name)
        ax.bar_label(bars, labels=[f"{height:.1f}" if height else "" for height in heights], padding=2)
    for place, diverged in zip(places, results["diverged"], strict=True):
        if diverged:
            ax.text(place, 2, "diverged", ha="center")
    ax.set_xticks(places, [f"{decay:g}" for decay in results["weight_decay"]])
    ax.set_xlabel("weight decay")
    ax.set_ylabel("accuracy (%)")
    ax.margins(y=0.2)  # room for the legend over the tallest bar
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, ncols=2, loc="upper right")
    return ax


def weight_decay_text(results: pd.DataFrame) -> str:
    """The facts of `plot_weight_decay`, a line a trial."""
    return "\n".join(
        f"weight decay {trial.weight_decay:g}: "
        + (
            "diverged"
            if trial.diverged
            else f"training {trial.train_accuracy:.1%}, validation {trial.val_accuracy:.1%}"
        )
        for trial in results.sort_values("weight_decay").itertuples()
    )


def _new_axes() -> Axes:
    _, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    return ax
