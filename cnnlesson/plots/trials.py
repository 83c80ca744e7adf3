"""Figures of trainings: the history of one, and the trials of a grid."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cnnlesson.noise import differences, like_best, smallest_difference
from cnnlesson.plots.figures import (
    SERIES_COLOURS,
    TRAIN_COLOUR,
    VAL_COLOUR,
    describe,
    label_ends,
    lesson_style,
    new_axes,
    readable_on,
)
from cnnlesson.results import ENDED, best_point, last_epochs
from cnnlesson.training import Epoch

METRICS = {
    "val_accuracy": "validation accuracy",
    "train_accuracy": "training accuracy",
    "val_loss": "validation loss",
    "train_loss": "training loss",
}


@lesson_style
def plot_history(history: Sequence[Epoch], axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Training and validation loss (left) and accuracy (right) of one training, by epoch.

    A cross near the lower edge marks the epoch in which the training diverged.
    """
    axes = axes if axes is not None else plt.subplots(1, 2, figsize=(9.6, 3.6))[1]
    numbers = [epoch.number for epoch in history]
    for ax, name, scale, unit in zip(axes, ("loss", "accuracy"), (1, 100), ("nats", "%"), strict=True):
        for part, colour, style in (("train", TRAIN_COLOUR, "o--"), ("val", VAL_COLOUR, "o-")):
            values = [scale * getattr(epoch, f"{part}_{name}") for epoch in history]
            ax.plot(numbers, values, style, color=colour, label="training" if part == "train" else "validation")
        ax.set(xlabel="epoch", ylabel=f"{name} ({unit})", xlim=(0.5, len(history) + 0.5))
        ax.set_ylim(0, 1.05 * ax.get_ylim()[1])  # with room for the highest point
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        label_ends(ax)
        for epoch in history:
            if epoch.diverged:
                place = {"xy": (epoch.number, 0.06), "xycoords": ax.get_xaxis_transform(), "ha": "center"}
                ax.plot(*place["xy"], "x", transform=place["xycoords"], color="black", ms=10, markeredgewidth=2)
                ax.annotate("diverged", xytext=(0, 8), textcoords="offset points", **place)
    facts = [
        f"epoch {epoch.number}: loss {epoch.train_loss:.3f} training, {epoch.val_loss:.3f} validation; "
        f"accuracy {epoch.train_accuracy:.1%} training, {epoch.val_accuracy:.1%} validation"
        + ("; diverged" if epoch.diverged else "")
        for epoch in history
    ]
    alt = "Curves of training and validation loss, and of training and validation accuracy, by epoch"
    return describe(axes, alt, "\n".join(facts))


def outcomes(results: pd.DataFrame, names: Sequence[str], metric: str) -> pd.DataFrame:
    """How the trials at each point ended: a row per point, with the columns mean, spread, note and text.

    Mean and spread of `metric` are those of the trials that completed; both are NaN while a trial of the point has not
    ended. The spread is the standard deviation over the seeds; of a single trial's validation accuracy it is the
    standard error that follows from the number of validation images, if the table has it. The note is empty if all
    completed, and otherwise counts the other states: "diverged", "1 of 3 diverged". The text is all of this: "37.5%",
    "37.5% ± 1.2" (in percentage points), "waiting", "37.5% ± 1.2 (1 of 3 diverged)"; of a loss "1.234 ± 0.012".

    Args:
        results: a row per trial, with the columns `names`, `metric` and state, and with seed if there are several.
        names: the hyper-parameters that make a point.
    """
    key = [*names, "seed"] if "seed" in results else [*names]
    if results.duplicated(key).any():
        raise ValueError(f"the table has several rows for one {', '.join(key)}: pass the last epoch of each trial")
    points, states = [results[name] for name in names], results["state"]
    values = results[metric].where(states == "completed").groupby(points)
    ended = states.isin(ENDED).groupby(points).all()
    notes = states.groupby(points).agg(_note)
    mean, spread = values.mean(), values.std()
    if metric == "val_accuracy" and "val_images" in results:
        error = (
            mean * (1 - mean) / results["val_images"].where(results["val_images"] > 0).groupby(points).min()
        ) ** 0.5
        spread = spread.where(values.count() > 1, error)
    table = pd.DataFrame({"mean": mean.where(ended), "spread": spread.where(ended), "note": notes})
    return table.assign(text=[_text(*row, metric) for row in table.itertuples(index=False)])


def _note(states: pd.Series) -> str:
    counts = states.value_counts()
    if len(counts) == 1:
        return states.iloc[0].replace("completed", "")
    return ", ".join(f"{count} of {len(states)} {state}" for state, count in counts.items() if state != "completed")


def _text(mean: float, spread: float, note: str, metric: str) -> str:
    if pd.isna(mean):
        return note
    return " ".join(filter(None, [_number(mean, metric), _spread(spread, metric), f"({note})" if note else ""]))


def _number(mean: float, metric: str) -> str:
    return f"{mean:.3f}" if _is_loss(metric) else f"{mean:.1%}"


def _spread(spread: float, metric: str) -> str:
    if pd.isna(spread):
        return ""
    return f"± {spread:.3f}" if _is_loss(metric) else f"± {100 * spread:.1f}"


def _is_loss(metric: str) -> bool:
    """Losses are in nats; the other metrics are shares."""
    return metric.endswith("loss")


@lesson_style
def plot_grid(results: pd.DataFrame, ax: Axes | None = None, metric: str = "val_accuracy") -> Axes:
    """A heat map of an accuracy or a loss by learning rate and batch size; with several seeds it shows the mean.

    Validation accuracies have their `uncertainty`, and the cells that `cnnlesson.noise.differences` cannot tell apart
    from the best one are marked. A bar beside the scale shows about the smallest difference from the best that counts.
    A hatched cell has no number: its trials diverged, failed or have not ended.

    Args:
        results: a row per trial, with the columns lr, batch_size, `metric` and state, and with seed if there are
            several; each (lr, batch_size, seed) occurs once.
        metric: one of `METRICS`.
    """
    table = outcomes(results, ["lr", "batch_size"], metric).sort_index(ascending=[False, True])
    grid = table["mean"].unstack().sort_index(ascending=False)
    is_loss = _is_loss(metric)
    shown = grid if is_loss else 100 * grid
    ax = ax or new_axes()
    marks, visible = _marks(results) if metric == "val_accuracy" else ({}, math.nan)
    image = ax.imshow(shown, cmap="cividis_r" if is_loss else "cividis", vmin=0, aspect="auto")  # light is good
    ax.patch.set(facecolor="white", hatch="///", edgecolor="lightgrey")  # visible in cells without a number
    for (lr, batch_size), mean, spread, note in table[["mean", "spread", "note"]].itertuples():
        column, row = grid.columns.get_loc(batch_size), grid.index.get_loc(lr)
        if pd.isna(mean):
            style = {"facecolor": "white", "edgecolor": "none", "pad": 2}
            ax.text(column, row, note.replace(", ", "\n"), ha="center", va="center", fontsize=13, bbox=style)
            continue
        style = {"ha": "center", "color": readable_on(image.to_rgba(shown.loc[lr, batch_size]))}
        small = "\n".join(filter(None, [_spread(spread, metric), note, marks.get((lr, batch_size))]))
        ax.text(column, row, _number(mean, metric), va="bottom" if small else "center", fontsize=13, **style)
        if small:
            ax.text(column, row, small, va="top", fontsize=10, **style)
    ax.set_xticks(range(grid.shape[1]), grid.columns)
    ax.set_yticks(range(grid.shape[0]), [f"{lr:g}" for lr in grid.index])
    ax.set(xlabel="batch size", ylabel="learning rate")
    unit = "nats" if is_loss else "%"
    label = "\n".join(filter(None, [f"{METRICS[metric]} ({unit})", metric == "val_accuracy" and uncertainty(results)]))
    bar = ax.figure.colorbar(image, ax=ax, label=label)
    table["text"] += [f" ({marks[key]})" if key in marks else "" for key in table.index]
    if not math.isnan(visible):
        top = bar.ax.get_ylim()[1]
        bar.ax.errorbar(0.5, top - 50 * visible, 50 * visible, color="black", elinewidth=2, capsize=5, capthick=2)
    facts = table["text"].unstack().sort_index(ascending=False).fillna("").rename(index="{:g}".format)
    facts = facts.rename_axis(index=None, columns="lr \\ batch size").to_string()
    if metric == "val_accuracy" and uncertainty(results):
        facts += f"\n{uncertainty(results)}, in percentage points"
    if not math.isnan(visible):
        facts += f"\nsmallest visible difference from the best: {100 * visible:.1f} percentage points"
    return describe(ax, "A heat map of the results of the trials, by learning rate and batch size", facts)


def uncertainty(results: pd.DataFrame) -> str:
    """What "±" means in the `outcomes` of validation accuracies; empty if there is none."""
    if "seed" in results and results["seed"].nunique() > 1:
        return f"± standard deviation of {results['seed'].nunique()} seeds"
    images = results["val_images"].max() if "val_images" in results else 0
    return f"± standard error with {images:,.0f} images" if images > 0 else ""


def _marks(results: pd.DataFrame) -> tuple[dict[tuple, str], float]:
    """By (lr, batch_size) "best", or "≈ best" if a point cannot be told apart from it; and the `smallest_difference`.

    There are no marks, and the difference is NaN, if the table does not tell what is noise.
    """
    table = differences(results)
    best = best_point(results, allow_unfinished=True)
    if table.empty or table["p"].isna().any():
        return {}, math.nan
    marks = {(point["lr"], point["batch_size"]): "≈ best" for point in like_best(table)}
    return marks | {(best["lr"], best["batch_size"]): "best"}, smallest_difference(table)


@lesson_style
def plot_trials(results: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Validation accuracy of each trial of a grid by epoch: a panel per learning rate, a line per batch size.

    A line is the mean of the seeds that continue, in a band of the spread that `outcomes` describes. A cross marks
    the epoch in which a trial diverged, and the label counts the trials that did not complete.

    Args:
        results: a row per trial and epoch, with the columns lr, batch_size, epoch, val_accuracy, diverged and state,
            and with seed if there are several.
    """
    curves = trial_curves(results).reset_index()
    notes = outcomes(last_epochs(results), ["lr", "batch_size"], "val_accuracy")["note"]
    rates = sorted(results["lr"].unique(), reverse=True)
    batch_sizes = sorted(results["batch_size"].unique())
    if axes is None:
        axes = plt.subplots(1, len(rates), figsize=(3.2 * len(rates), 3.2), sharey=True, squeeze=False)[1][0]
    facts = []
    for ax, lr in zip(axes, rates, strict=True):
        for place, batch_size in enumerate(batch_sizes):
            curve = curves[(curves["lr"] == lr) & (curves["batch_size"] == batch_size)]
            mean, spread = 100 * curve["mean"], 100 * curve["spread"]
            colour = SERIES_COLOURS[place % len(SERIES_COLOURS)]
            note = notes.get((lr, batch_size), "")
            label = ", ".join(filter(None, [f"batch {batch_size}", note]))
            ax.plot(curve["epoch"], mean, "o-", color=colour, label=label)
            ax.fill_between(curve["epoch"], mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
            diverged = curve["diverged"]
            style = {"color": colour, "ms": 12, "mew": 2, "clip_on": False, "in_layout": False}  # whole at the edge
            ax.plot(curve["epoch"][diverged], mean[diverged].fillna(0), "x", **style)
            texts = curve["text"].tolist()
            if note and (not texts or note not in texts[-1]):
                texts.append(note)
            if texts:
                facts.append(f"lr {lr:g}, batch size {batch_size}: {', '.join(texts)}")
        ax.set(title=f"learning rate {lr:g}", xlabel="epoch", xlim=(0.5, max(1, results["epoch"].max()) + 0.5))
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes[0].set_ylabel("validation accuracy (%)")
    axes[0].set_ylim(bottom=0)
    for ax in axes:
        label_ends(ax)
    alt = "Curves of validation accuracy by epoch: a panel per learning rate, a line per batch size"
    return describe(axes, alt, "\n".join(facts))


def trial_curves(results: pd.DataFrame) -> pd.DataFrame:
    """`outcomes` of validation accuracy by learning rate, batch size and epoch, and whether a trial diverged in it.

    A trial that has diverged or failed is counted in the notes of the later epochs too.
    """
    names = ["lr", "batch_size", "epoch"]
    epochs = results[results["epoch"] > 0]
    of_epochs = epochs.groupby(names)
    last = last_epochs(results)
    lost = last[last["state"].isin(["diverged", "failed"])].rename(columns={"epoch": "last"})
    later = lost.merge(epochs[names].drop_duplicates(), on=["lr", "batch_size"]).query("epoch > last")
    epochs = epochs.assign(state=np.where(epochs["diverged"], "diverged", "completed"))
    later = later.assign(val_accuracy=np.nan)
    curves = outcomes(pd.concat([epochs, later]) if len(later) else epochs, names, "val_accuracy")
    mean = curves["mean"].fillna(of_epochs["val_accuracy"].mean())  # for epochs in which every seed diverged
    return curves.assign(mean=mean, diverged=of_epochs["diverged"].any())


@lesson_style
def plot_weight_decay(results: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Training and validation accuracy by weight decay, at one learning rate and batch size.

    A bar is the mean of the seeds, with the spread that `outcomes` describes. Trials that diverged, failed or have not
    ended have no bar.

    Args:
        results: a row per trial, with the columns weight_decay, train_accuracy, val_accuracy and state, and with seed
            if there are several.
    """
    ax = ax or new_axes()
    train = outcomes(results, ["weight_decay"], "train_accuracy").reset_index()
    validation = outcomes(results, ["weight_decay"], "val_accuracy").reset_index()
    parts = (("training", train, TRAIN_COLOUR, -0.2), ("validation", validation, VAL_COLOUR, 0.2))
    for name, decays, colour, shift in parts:
        heights = 100 * decays["mean"].fillna(0)
        errors = 100 * decays["spread"] if decays["spread"].notna().any() else None
        bars = ax.bar(decays.index + shift, heights, yerr=errors, capsize=3, width=0.38, color=colour, label=name)
        labels = [
            "" if pd.isna(mean) else f"{100 * mean:.1f}\n{_spread(spread, 'accuracy')}".rstrip()
            for mean, spread in zip(decays["mean"], decays["spread"], strict=True)
        ]
        ax.bar_label(bars, labels, padding=2)
    ticks, facts = [], []
    for place, decay, mean, _, note, text in validation.itertuples():
        if pd.isna(mean):
            ax.text(place, 0.02, note.replace(", ", "\n"), ha="center", transform=ax.get_xaxis_transform())
            ticks.append(f"{decay:g}")
            facts.append(f"weight decay {decay:g}: {note}")
        else:
            ticks.append(f"{decay:g}\n({note})" if note else f"{decay:g}")
            train_text, _, _ = train["text"][place].partition(" (")  # without the note
            facts.append(f"weight decay {decay:g}: training {train_text}, validation {text}")
    ax.set_xticks(validation.index, ticks)
    ax.set(xlabel="weight decay", ylabel="accuracy (%)")
    ax.margins(y=0.28)  # room for the legend above the tallest bar
    ax.set_ylim(0, max(1, ax.get_ylim()[1]))  # there may be no bar
    ax.legend(ncols=2, loc="upper right")
    return describe(ax, "Bars of training and validation accuracy by weight decay", "\n".join(facts))
