"""Figures of trainings: one history, and the trials of a grid."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cnnlesson.plots.figures import (
    SERIES_COLOURS,
    TRAIN_COLOUR,
    VAL_COLOUR,
    figure,
    label_ends,
    new_axes,
    readable_on,
)
from cnnlesson.training import Epoch


def history_text(history: Sequence[Epoch]) -> str:
    """The facts of `plot_history`, a line an epoch."""
    return "\n".join(
        f"epoch {epoch.number}: loss {epoch.train_loss:.3f} training, {epoch.val_loss:.3f} validation; "
        f"accuracy {epoch.train_accuracy:.1%} training, {epoch.val_accuracy:.1%} validation"
        + ("; diverged" if epoch.diverged else "")
        for epoch in history
    )


@figure("Curves of the loss and of the accuracy over the epochs, in training and in validation", history_text)
def plot_history(history: Sequence[Epoch], axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Losses (left) and accuracies (right) over the epochs, of training and of validation.

    A cross near the lower edge marks the epoch in which a training diverged.

    Args:
        history: of one training.
        axes: two, side by side.
    """
    axes = axes if axes is not None else plt.subplots(1, 2, figsize=(9.6, 3.6))[1]
    numbers = [epoch.number for epoch in history]
    for ax, name, scale, words in zip(
        axes, ("loss", "accuracy"), (1, 100), ("loss (nats)", "accuracy (%)"), strict=True
    ):
        for part, colour, style in (("train", TRAIN_COLOUR, "o--"), ("val", VAL_COLOUR, "o-")):
            values = [scale * getattr(epoch, f"{part}_{name}") for epoch in history]
            ax.plot(numbers, values, style, color=colour, label="training" if part == "train" else "validation")
        ax.set_xlabel("epoch")
        ax.set_ylabel(words)
        ax.set_ylim(0, 1.05 * ax.get_ylim()[1])  # with room for the highest point
        ax.set_xlim(0.5, len(history) + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        label_ends(ax)
        for epoch in history:
            if epoch.diverged:
                place = {"xy": (epoch.number, 0.06), "xycoords": ax.get_xaxis_transform(), "ha": "center"}
                ax.plot(*place["xy"], "x", transform=place["xycoords"], color="black", ms=10, markeredgewidth=2)
                ax.annotate("diverged", xytext=(0, 8), textcoords="offset points", **place)
    return axes


def outcomes(results: pd.DataFrame, names: Sequence[str], figure: str) -> pd.DataFrame:
    """What the trials at each point gave: a row a point, with the columns mean, spread, note and words.

    Mean and spread (the standard deviation) are those of `figure` over the seeds, without the trials that diverged or
    failed. The note is empty where all completed, else it says what did not: "diverged", or "1 of 3 diverged". The
    words are all of this: "37.5%", "37.5% ± 1.2" (in percentage points), "12.0% (pruned)", "diverged"; of a loss
    "1.234 ± 0.012".

    Args:
        results: a row a trial, with the columns `names`, `figure` and diverged, and state and seed where there are.
        names: of the hyper-parameters that make a point.
    """
    seed = ["seed"] if "seed" in results else []
    if results.duplicated([*names, *seed]).any():
        raise ValueError(
            f"the table has several rows for one {', '.join([*names, *seed])}: give the last epoch of each trial"
        )
    states = results["state"] if "state" in results else pd.Series("completed", index=results.index)
    states = states.mask(results["diverged"].astype(bool), "diverged")
    points = [results[name] for name in names]
    shares = results[figure].where(~states.isin(["diverged", "failed"])).groupby(points)
    found = pd.DataFrame({"mean": shares.mean(), "spread": shares.std(), "note": states.groupby(points).agg(_note)})
    return found.assign(words=[_in_words(*row, figure) for row in found.itertuples(index=False)])


def _note(states: pd.Series) -> str:
    counts = states.value_counts()
    if len(counts) == 1:
        return states.iloc[0].replace("completed", "")
    return ", ".join(f"{count} of {len(states)} {state}" for state, count in counts.items() if state != "completed")


def _in_words(mean: float, spread: float, note: str, figure: str) -> str:
    if pd.isna(mean):
        return note
    return " ".join(filter(None, [_number(mean, figure), _spread(spread, figure), f"({note})" if note else ""]))


def _number(mean: float, figure: str) -> str:
    return f"{mean:.3f}" if _is_loss(figure) else f"{mean:.1%}"


def _spread(spread: float, figure: str) -> str:
    if pd.isna(spread):
        return ""
    return f"± {spread:.3f}" if _is_loss(figure) else f"± {100 * spread:.1f}"


def _is_loss(figure: str) -> bool:
    """Losses are in nats; the other figures are shares."""
    return figure.endswith("loss")


METRICS = {
    "val_accuracy": "validation accuracy",
    "train_accuracy": "training accuracy",
    "val_loss": "validation loss",
    "train_loss": "training loss",
}


def grid_text(results: pd.DataFrame, metric: str = "val_accuracy") -> str:
    """The facts of `plot_grid`, as a table."""
    words = _grid(results, metric)["words"]
    words.index = [f"{lr:g}" for lr in words.index]
    words = words.rename_axis(index=None, columns="lr \\ batch size")
    return words.to_string()


@figure("A heat map of what the trials gave, over learning rate and batch size", grid_text)
def plot_grid(results: pd.DataFrame, ax: Axes | None = None, metric: str = "val_accuracy") -> Axes:
    """A heat map of an accuracy or a loss over learning rate and batch size: of several seeds the mean.

    Args:
        results: a row a trial, with the columns lr, batch_size, `metric` and diverged, and state and seed where there
            are, and each (lr, batch_size, seed) once.
        metric: one of `METRICS`.
    """
    grid = _grid(results, metric)
    is_loss = _is_loss(metric)
    shown = grid["mean"] if is_loss else 100 * grid["mean"]
    ax = ax or new_axes()
    image = ax.imshow(shown, cmap="cividis_r" if is_loss else "cividis", vmin=0, aspect="auto")  # light is good
    ax.patch.set(facecolor="white", hatch="///", edgecolor="lightgrey")  # shows where no trial has a figure
    for row, lr in enumerate(shown.index):
        for column, batch_size in enumerate(shown.columns):
            mean, spread, note = (grid[part].loc[lr, batch_size] for part in ("mean", "spread", "note"))
            large, small = note, ""
            if not pd.isna(mean):
                large, small = _number(mean, metric), "\n".join(filter(None, [_spread(spread, metric), note]))
            cell = ax.get_facecolor() if pd.isna(mean) else image.to_rgba(shown.loc[lr, batch_size])
            style = {"ha": "center", "color": readable_on(cell)}
            if pd.isna(mean) and note:
                style["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 2}  # over the hatching
            ax.text(column, row, large, va="bottom" if small else "center", fontsize=13, **style)
            if small:
                ax.text(column, row, small, va="top", fontsize=10, **style)
    ax.set_xticks(range(shown.shape[1]), shown.columns)
    ax.set_yticks(range(shown.shape[0]), [f"{lr:g}" for lr in shown.index])
    ax.set_xlabel("batch size")
    ax.set_ylabel("learning rate")
    ax.figure.colorbar(image, ax=ax, label=METRICS[metric] + (" (nats)" if is_loss else " (%)"))
    return ax


def _grid(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """`outcomes`, learning rate by batch size; a part of it, such as _grid(results, metric)["words"], is a table."""
    grid = outcomes(results, ["lr", "batch_size"], metric).unstack().sort_index(ascending=False)
    return grid.fillna({column: "" for column in grid if column[0] in ("note", "words")})


def trials_text(results: pd.DataFrame) -> str:
    """The facts of `plot_trials`, a line a trial."""
    words = trial_curves(results)["words"]
    lines = []
    for (lr, batch_size), _ in results.groupby(["lr", "batch_size"]):
        of_trial = [word for (*point, _), word in words.items() if point == [lr, batch_size]]
        lines.append(f"lr {lr:g}, batch size {batch_size}: {', '.join(of_trial) or 'no epoch'}")
    return "\n".join(lines)


@figure("Curves of validation accuracy over the epochs: a panel a learning rate, a line a batch size", trials_text)
def plot_trials(results: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Validation accuracy over the epochs of each trial of a grid: a panel a learning rate, a line a batch size.

    A line is the mean of its seeds, in a band of their standard deviation. A cross ends a trial that diverged, or one
    of whose seeds did.

    Args:
        results: a row a trial and epoch, with the columns lr, batch_size, epoch, val_accuracy and diverged, and seed
            where there are several.
        axes: one for each learning rate, side by side.
    """
    curves = trial_curves(results).reset_index()
    rates = sorted(results["lr"].unique(), reverse=True)
    batch_sizes = sorted(results["batch_size"].unique())
    if axes is None:
        size = (3.2 * len(rates), 3.2)
        axes = plt.subplots(1, len(rates), figsize=size, sharey=True, squeeze=False)[1][0]
    for ax, lr in zip(axes, rates, strict=True):
        for place, batch_size in enumerate(batch_sizes):
            curve = curves[(curves["lr"] == lr) & (curves["batch_size"] == batch_size)]
            mean, spread = 100 * curve["mean"], 100 * curve["spread"]
            colour = SERIES_COLOURS[place % len(SERIES_COLOURS)]
            note = "".join(curve["note"].tail(1))
            label = ", ".join(filter(None, [f"batch {batch_size}", note]))
            ax.plot(curve["epoch"], mean, "o-", color=colour, label=label)
            ax.fill_between(curve["epoch"], mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
            diverged = curve["note"] != ""
            style = {"color": colour, "markersize": 12, "markeredgewidth": 2}
            whole = {"clip_on": False, "in_layout": False}  # also at the lower edge
            ax.plot(curve["epoch"][diverged], mean[diverged].fillna(0), "x", **style, **whole)
        ax.set_title(f"learning rate {lr:g}")
        ax.set_xlabel("epoch")
        ax.set_xlim(0.5, max(1, results["epoch"].max()) + 0.5)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes[0].set_ylabel("validation accuracy (%)")
    axes[0].set_ylim(bottom=0)
    for ax in axes:
        label_ends(ax)
    return axes


def trial_curves(results: pd.DataFrame) -> pd.DataFrame:
    """`outcomes` of validation accuracy for each learning rate, batch size and epoch."""
    names = ["lr", "batch_size", "epoch"]
    epochs = results[results["epoch"] > 0].drop(columns="state", errors="ignore")  # it is the state at the end
    curves = outcomes(epochs, names, "val_accuracy")
    last = epochs.groupby(names)["val_accuracy"].mean()  # of an epoch in which all seeds diverged
    return curves.assign(mean=curves["mean"].fillna(last))


def weight_decay_text(results: pd.DataFrame) -> str:
    """The facts of `plot_weight_decay`, a line a weight decay."""
    train = outcomes(results, ["weight_decay"], "train_accuracy")
    validation = outcomes(results, ["weight_decay"], "val_accuracy")
    lines = []
    for decay, row in validation.iterrows():
        words = row["words"]
        if not pd.isna(row["mean"]):
            words = (
                f"training {_in_words(*train.loc[decay, ['mean', 'spread']], '', 'train_accuracy')}, validation {words}"
            )
        lines.append(f"weight decay {decay:g}: {words}")
    return "\n".join(lines)


@figure("Bars of training and validation accuracy for each weight decay", weight_decay_text)
def plot_weight_decay(results: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Training and validation accuracy of one point of the grid, for each weight decay it was trained with.

    A bar is the mean of its seeds, with their standard deviation.

    Args:
        results: a row a trial, with the columns weight_decay, train_accuracy, val_accuracy and diverged, and state
            and seed where there are.
    """
    ax = ax or new_axes()
    for column, colour, shift, name in (
        ("train_accuracy", TRAIN_COLOUR, -0.2, "training"),
        ("val_accuracy", VAL_COLOUR, 0.2, "validation"),
    ):
        decays = outcomes(results, ["weight_decay"], column).reset_index()
        heights = 100 * decays["mean"].fillna(0)  # no bar where it diverged
        errors = 100 * decays["spread"] if decays["spread"].notna().any() else None
        bars = ax.bar(decays.index + shift, heights, yerr=errors, capsize=3, width=0.38, color=colour, label=name)
        labels = ["" if pd.isna(mean) else f"{100 * mean:.1f}" for mean in decays["mean"]]
        spreads = [_spread(spread, column) for spread in decays["spread"]]
        ax.bar_label(
            bars, [f"{label}\n{spread}".strip() for label, spread in zip(labels, spreads, strict=True)], padding=2
        )
    ticks = []
    for place, decay, mean, note in decays[["weight_decay", "mean", "note"]].itertuples():
        if pd.isna(mean):
            ax.text(place, 2, note, ha="center")
        ticks.append(f"{decay:g}" if pd.isna(mean) or not note else f"{decay:g}\n({note})")
    ax.set_xticks(decays.index, ticks)
    ax.set_xlabel("weight decay")
    ax.set_ylabel("accuracy (%)")
    ax.margins(y=0.28)  # room for the legend over the tallest bar
    ax.legend(ncols=2, loc="upper right")
    return ax
