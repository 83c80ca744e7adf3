"""The figures of the lesson. Each draws on `ax`, or on a new figure, and returns it; each has a twin in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torchvision.utils import make_grid

from cnnlesson.data import ImageSet
from cnnlesson.training import Epoch
from cnnlesson.whole_file import whole_file

# Colours of Okabe and Ito's palette ("Color universal design", 2008), which colour-blind readers tell apart.
TRAIN_COLOUR = "#E69F00"
VAL_COLOUR = "#0072B2"
PLAIN_COLOUR = "#D55E00"
RESIDUAL_COLOUR = "#0072B2"
DEPTH_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def plot_images(image_set: ImageSet, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """The first images of a set, at most twelve, each under the name of its class."""
    if axes is None:
        rows = 1 if len(image_set) <= 6 else 2
        _, axes = plt.subplots(rows, 6, figsize=(9.6, 1.9 * rows), layout="constrained", squeeze=False)
        axes = axes.flat
    axes = list(axes)
    for ax in axes:
        ax.axis("off")
    for ax, image, label in zip(axes, image_set.images.cpu(), image_set.labels, strict=False):
        ax.imshow(image.permute(1, 2, 0).numpy())  # (H, W, 3)
        ax.set_title(image_set.classes[label], fontsize=10)
    return axes


def images_text(image_set: ImageSet) -> str:
    """What `plot_images` shows: the classes of the images, in order."""
    return ", ".join(image_set.classes[label] for label in image_set.labels[:12])


def plot_class_balance(parts: Mapping[str, torch.Tensor], classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """The share that each of the first twelve classes has in each part of a split: a bar a class and part.

    Args:
        parts: the labels (N,) of each part by its name, such as {"training": train_set.labels}.
        classes: the names of the classes.
    """
    shares = _class_shares(parts, classes).iloc[:12]
    ax = ax or plt.subplots(figsize=(9.6, 3.2), layout="constrained")[1]
    width = 0.8 / len(parts)
    for number, (name, colour) in enumerate(zip(parts, (TRAIN_COLOUR, VAL_COLOUR, "#009E73"), strict=False)):
        places = [place + (number - (len(parts) - 1) / 2) * width for place in range(len(shares))]
        bars = ax.bar(places, 100 * shares[name], width=0.92 * width, color=colour, label=name)
        if len(shares) <= 4:
            ax.bar_label(bars, fmt="%.0f", padding=2)
    slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(shares) > 4 else {}
    ax.set_xticks(range(len(shares)), shares.index, **slant)
    ax.set_ylabel("share of the part (%)")
    ax.margins(y=0.15)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def class_balance_text(parts: Mapping[str, torch.Tensor], classes: Sequence[str]) -> str:
    """The facts of `plot_class_balance`, of all classes, as a table."""
    return _class_shares(parts, classes).map("{:.1%}".format).to_string()


def _class_shares(parts: Mapping[str, torch.Tensor], classes: Sequence[str]) -> pd.DataFrame:
    counts = {name: torch.bincount(labels.cpu(), minlength=len(classes)) for name, labels in parts.items()}
    return pd.DataFrame({name: (count / count.sum()).numpy() for name, count in counts.items()}, index=list(classes))


def plot_folds(folds: Sequence[tuple[torch.Tensor, torch.Tensor]], ax: Axes | None = None) -> Axes:
    """Which images each fold trains on and which it validates on: a row a fold, a field an image.

    Args:
        folds: for each fold the indices of its training and of its validation images; some dozens are readable.
    """
    num_images = 1 + max(int(part.max()) for fold in folds for part in fold)
    use = torch.full((len(folds), num_images), float("nan"))
    for row, (train, validation) in enumerate(folds):
        use[row, train], use[row, validation] = 0, 1
    ax = ax or plt.subplots(figsize=(9.6, 0.4 * len(folds) + 1), layout="constrained")[1]
    colours = ListedColormap([TRAIN_COLOUR, VAL_COLOUR])
    ax.pcolormesh(use.numpy(), cmap=colours, vmin=0, vmax=1, edgecolors="white", linewidth=1)
    ax.invert_yaxis()
    ax.set_yticks([row + 0.5 for row in range(len(folds))], [f"fold {row + 1}" for row in range(len(folds))])
    ax.set_xlabel("image")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    handles = [Patch(color=TRAIN_COLOUR, label="training"), Patch(color=VAL_COLOUR, label="validation")]
    ax.legend(handles=handles, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def folds_text(folds: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> str:
    """The facts of `plot_folds`, a line a fold."""
    return "\n".join(
        f"fold {number}: trains on {len(train)} images, validates on {', '.join(map(str, sorted(validation.tolist())))}"
        for number, (train, validation) in enumerate(folds, start=1)
    )


def plot_leaks(
    train: ImageSet, other: ImageSet, leaks: pd.DataFrame, axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """The first six pairs of pictures that are in both sets: training images above, those of the other set below.

    Args:
        leaks: from `cnnlesson.data.find_leaks`, with one pair at least.
        axes: twelve, six of them in the upper row.
    """
    leaks = leaks.head(6)
    if axes is None:
        _, axes = plt.subplots(2, 6, figsize=(9.6, 3.8), layout="constrained")
        axes = axes.flat
    axes = list(axes)
    for ax in axes:
        ax.axis("off")
    for place, pair in enumerate(leaks.itertuples()):
        images = [(axes[place], train, pair.train_index), (axes[place + len(axes) // 2], other, pair.other_index)]
        for ax, image_set, index in images:
            ax.imshow(image_set.images[index].cpu().permute(1, 2, 0).numpy())  # (H, W, 3)
            ax.set_title(image_set.classes[image_set.labels[index]], fontsize=10)
    return axes


def leaks_text(train: ImageSet, other: ImageSet, leaks: pd.DataFrame) -> str:
    """The facts of `plot_leaks`, a line a pair."""
    return "\n".join(
        f"{pair.kind}, distance {pair.distance:.2f}: training image {pair.train_index}, "
        f"{train.classes[train.labels[pair.train_index]]}, and image {pair.other_index}, "
        f"{other.classes[other.labels[pair.other_index]]}"
        for pair in leaks.head(6).itertuples()
    )


def plot_layers(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Memory, parameters and work of each layer, as bars: three panels.

    Args:
        table: from `cnnlesson.anatomy.layer_table`.
        axes: three, side by side.
    """
    table = table.drop(index="total", errors="ignore")
    if axes is None:
        _, axes = plt.subplots(1, 3, figsize=(9.6, 0.26 * len(table) + 1.2), sharey=True, layout="constrained")
    titles = ("memory of the output (KB)", "parameters (thousands)", "multiply-adds (millions)")
    for ax, column, title in zip(axes, ("memory_kb", "params_k", "flop_m"), titles, strict=True):
        bars = ax.barh(table.index, table[column], color=VAL_COLOUR)
        ax.bar_label(bars, [f"{value:,.0f}" if value >= 0.5 else "" for value in table[column]], padding=2, fontsize=9)
        ax.set_title(title, fontsize=10)
        ax.margins(x=0.25)
        ax.set_xticks([])
        ax.spines[["top", "right", "bottom"]].set_visible(False)
    axes[0].invert_yaxis()  # sharey: the first layer on top in all three
    return axes


def layers_text(table: pd.DataFrame) -> str:
    """The facts of `plot_layers` in short: what share of each total its largest layer has."""
    table = table.drop(index="total", errors="ignore")
    names = {"memory_kb": "memory", "params_k": "parameters", "flop_m": "multiply-adds"}
    return "\n".join(
        f"{name}: most in {table[column].idxmax()}, {table[column].max() / table[column].sum():.0%} of the total"
        for column, name in names.items()
    )


def plot_filters(weight: torch.Tensor, ax: Axes | None = None) -> Axes:
    """The filters of a first convolution, each as a small colour image, its values stretched over the whole range.

    Args:
        weight: (filters, 3, H, W).
    """
    return _plot_tiles(weight.detach().float().cpu(), None, ax)


def filters_text(weight: torch.Tensor) -> str:
    """The facts of `plot_filters`: how many there are, and the range of their values."""
    filters, channels, height, width = weight.shape
    return f"{filters} filters of {channels}×{height}×{width}, values from {weight.min():.2g} to {weight.max():.2g}"


def plot_feature_maps(maps: torch.Tensor, ax: Axes | None = None) -> Axes:
    """What the first 32 channels of a layer give for one image, each stretched from dark (lowest) to light (highest).

    Args:
        maps: (channels, H, W).
    """
    return _plot_tiles(maps.detach().float().cpu()[:32, None], "cividis", ax)


def feature_maps_text(maps: torch.Tensor) -> str:
    """The facts of `plot_feature_maps`: for each channel the range, and how much of the map is above 0."""
    return "\n".join(
        f"channel {channel}: from {values.min():.2g} to {values.max():.2g}, {(values > 0).float().mean():.0%} above 0"
        for channel, values in enumerate(maps[:32])
    )


def _plot_tiles(tiles: torch.Tensor, colours: str | None, ax: Axes | None) -> Axes:
    """Tiles (N, C, H, W) in rows of 16, one pixel or more apart."""
    ax = ax or plt.subplots(figsize=(9.6, 0.66 * -(-len(tiles) // 16) + 0.2), layout="constrained")[1]
    gap = max(1, tiles.shape[-1] // 12)
    grid = make_grid(
        tiles, nrow=16, padding=gap, normalize=True, scale_each=True, pad_value=float("nan")
    )  # (3, height, width)
    ax.imshow((grid.permute(1, 2, 0) if colours is None else grid[0]).numpy(), cmap=colours)
    ax.axis("off")
    return ax


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
    ax.set_xlim(0.5, len(history) + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax


def history_text(history: Sequence[Epoch]) -> str:
    """The facts of `plot_history`, a line an epoch."""
    return "\n".join(
        f"epoch {epoch.number}: training {epoch.train_accuracy:.1%}, validation {epoch.val_accuracy:.1%}"
        for epoch in history
    )


def outcomes(results: pd.DataFrame, names: Sequence[str], figure: str) -> pd.DataFrame:
    """What the trials at each point gave: a row a point, with the columns mean, spread, note and words.

    Mean and spread (the standard deviation) are those of `figure` over the seeds, without the trials that diverged or
    failed. The note is empty where all completed, else it says what did not: "diverged", or "1 of 3 diverged". The
    words are all of this: "37.5%", "37.5% ± 1.2" (in percentage points), "12.0% (pruned)", "diverged".

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
    return found.assign(words=[_in_words(*row) for row in found.itertuples(index=False)])


def _note(states: pd.Series) -> str:
    counts = states.value_counts()
    if len(counts) == 1:
        return states.iloc[0].replace("completed", "")
    return ", ".join(f"{count} of {len(states)} {state}" for state, count in counts.items() if state != "completed")


def _in_words(mean: float, spread: float, note: str) -> str:
    if pd.isna(mean):
        return note
    return " ".join(filter(None, [f"{mean:.1%}", _spread(spread), f"({note})" if note else ""]))


def _spread(spread: float) -> str:
    return "" if pd.isna(spread) else f"± {100 * spread:.1f}"


def plot_grid(results: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """A heat map of validation accuracy over learning rate and batch size: of several seeds the mean.

    Args:
        results: a row a trial, with the columns lr, batch_size, val_accuracy and diverged, and state and seed where
            there are, and each (lr, batch_size, seed) once.
    """
    grid = _grid(results)
    accuracy = 100 * grid["mean"]
    ax = ax or _new_axes()
    image = ax.imshow(accuracy, cmap="cividis", vmin=0, aspect="auto")
    ax.set_facecolor("lightgrey")  # shows where no trial has an accuracy
    for row, lr in enumerate(accuracy.index):
        for column, batch_size in enumerate(accuracy.columns):
            mean, spread, note = (grid[part].loc[lr, batch_size] for part in ("mean", "spread", "note"))
            large, small = note, ""
            if not pd.isna(mean):
                large, small = f"{mean:.1%}", "\n".join(filter(None, [_spread(spread), note]))
            style = {"ha": "center", "color": "white" if 100 * mean < image.norm.vmax / 2 else "black"}
            ax.text(column, row, large, va="bottom" if small else "center", fontsize=13, **style)
            if small:
                ax.text(column, row, small, va="top", fontsize=9, **style)
    ax.set_xticks(range(accuracy.shape[1]), accuracy.columns)
    ax.set_yticks(range(accuracy.shape[0]), [f"{lr:g}" for lr in accuracy.index])
    ax.set_xlabel("batch size")
    ax.set_ylabel("learning rate")
    ax.figure.colorbar(image, ax=ax, label="validation accuracy (%)")
    return ax


def grid_text(results: pd.DataFrame) -> str:
    """The facts of `plot_grid`, as a table."""
    words = _grid(results)["words"]
    words.index = [f"{lr:g}" for lr in words.index]
    words = words.rename_axis(index=None, columns="lr \\ batch size")
    return words.to_string()


def _grid(results: pd.DataFrame) -> pd.DataFrame:
    """`outcomes`, learning rate by batch size; a part of it, such as _grid(results)["words"], is a table."""
    grid = outcomes(results, ["lr", "batch_size"], "val_accuracy").unstack().sort_index(ascending=False)
    return grid.fillna({column: "" for column in grid if column[0] in ("note", "words")})


def plot_trials(results: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Validation accuracy over the epochs of each trial of a grid: a panel a learning rate, a line a batch size.

    A line is the mean of its seeds, in a band of their standard deviation. A cross ends a trial that diverged.

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
        axes = plt.subplots(1, len(rates), figsize=size, sharey=True, layout="constrained", squeeze=False)[1][0]
    for ax, lr in zip(axes, rates, strict=True):
        for place, batch_size in enumerate(batch_sizes):
            curve = curves[(curves["lr"] == lr) & (curves["batch_size"] == batch_size)]
            mean, spread = 100 * curve["mean"], 100 * curve["spread"]
            colour = DEPTH_COLOURS[place % len(DEPTH_COLOURS)]
            ax.plot(curve["epoch"], mean, "o-", color=colour, label=f"batch size {batch_size}")
            ax.fill_between(curve["epoch"], mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
            diverged = curve["note"] != ""
            style = {"color": colour, "markersize": 12, "markeredgewidth": 2}
            whole = {"clip_on": False, "in_layout": False}  # also at the lower edge
            ax.plot(curve["epoch"][diverged], mean[diverged].fillna(0), "x", **style, **whole)
        ax.set_title(f"learning rate {lr:g}", fontsize=10)
        ax.set_xlabel("epoch")
        ax.set_xlim(0.5, max(1, results["epoch"].max()) + 0.5)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("validation accuracy (%)")
    axes[0].set_ylim(bottom=0)
    handles = axes[0].get_legend_handles_labels()[0]
    if results["diverged"].any():
        handles.append(Line2D([], [], color="grey", marker="x", ls="", markersize=10, label="diverged"))
    axes[-1].legend(handles=handles, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return axes


def trials_text(results: pd.DataFrame) -> str:
    """The facts of `plot_trials`, a line a trial."""
    words = trial_curves(results)["words"]
    lines = []
    for (lr, batch_size), _ in results.groupby(["lr", "batch_size"]):
        of_trial = [word for (*point, _), word in words.items() if point == [lr, batch_size]]
        lines.append(f"lr {lr:g}, batch size {batch_size}: {', '.join(of_trial) or 'no epoch'}")
    return "\n".join(lines)


def trial_curves(results: pd.DataFrame) -> pd.DataFrame:
    """`outcomes` of validation accuracy for each learning rate, batch size and epoch."""
    names = ["lr", "batch_size", "epoch"]
    epochs = results[results["epoch"] > 0].drop(columns="state", errors="ignore")  # it is the state at the end
    curves = outcomes(epochs, names, "val_accuracy")
    last = epochs.groupby(names)["val_accuracy"].mean()  # of an epoch in which all seeds diverged
    return curves.assign(mean=curves["mean"].fillna(last))


def plot_weight_decay(results: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Training and validation accuracy of one point of the grid, for each weight decay it was trained with.

    A bar is the mean of its seeds, with their standard deviation.

    Args:
        results: a row a trial, with the columns weight_decay, train_accuracy, val_accuracy and diverged, and state
            and seed where there are.
    """
    ax = ax or _new_axes()
    for column, colour, shift, name in (
        ("train_accuracy", TRAIN_COLOUR, -0.2, "training"),
        ("val_accuracy", VAL_COLOUR, 0.2, "validation"),
    ):
        decays = outcomes(results, ["weight_decay"], column).reset_index()
        heights = 100 * decays["mean"].fillna(0)  # no bar where it diverged
        errors = 100 * decays["spread"] if decays["spread"].notna().any() else None
        bars = ax.bar(decays.index + shift, heights, yerr=errors, capsize=3, width=0.38, color=colour, label=name)
        labels = ["" if pd.isna(mean) else f"{100 * mean:.1f}" for mean in decays["mean"]]
        spreads = [_spread(spread) for spread in decays["spread"]]
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
    ax.margins(y=0.2)  # room for the legend over the tallest bar
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, ncols=2, loc="upper right")
    return ax


def weight_decay_text(results: pd.DataFrame) -> str:
    """The facts of `plot_weight_decay`, a line a weight decay."""
    train = outcomes(results, ["weight_decay"], "train_accuracy")
    validation = outcomes(results, ["weight_decay"], "val_accuracy")
    lines = []
    for decay, row in validation.iterrows():
        words = row["words"]
        if not pd.isna(row["mean"]):
            words = f"training {_in_words(*train.loc[decay, ['mean', 'spread']], '')}, validation {words}"
        lines.append(f"weight decay {decay:g}: {words}")
    return "\n".join(lines)


def plot_depth_curves(results: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Training error (dashed) and test error (solid) over the epochs, for networks of several depths.

    Plain networks are on the left, residual ones on the right; a line is the mean of its seeds.

    Args:
        results: a row a network and epoch, with the columns depth, residual, seed, epoch, train_error and test_error
            (shares between 0 and 1), such as `cnnlesson.reference.load("cifar10_depth").table`.
        axes: two, side by side.
    """
    axes = axes if axes is not None else _new_pair_of_axes()
    errors = _mean_errors(results)
    depths = sorted(results["depth"].unique())
    colours = {depth: DEPTH_COLOURS[place % len(DEPTH_COLOURS)] for place, depth in enumerate(depths)}
    for ax, is_residual in zip(axes, (False, True), strict=True):
        for (residual, depth), curve in errors.groupby(["residual", "depth"]):
            if residual == is_residual:
                ax.plot(curve["epoch"], 100 * curve["train_error"], "--", color=colours[depth])
                ax.plot(curve["epoch"], 100 * curve["test_error"], "-", color=colours[depth])
        ax.set_title("residual" if is_residual else "plain")
        ax.set_xlabel("epoch")
        ax.set_ylabel("error (%)")
        ax.set_ylim(0, 105 * errors[["train_error", "test_error"]].max(axis=None))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.spines[["top", "right"]].set_visible(False)
    handles = [Line2D([], [], color=colours[depth], label=f"{depth} layers") for depth in depths]
    handles += [Line2D([], [], color="grey", label="test"), Line2D([], [], color="grey", ls="--", label="training")]
    axes[1].legend(handles=handles, frameon=False)
    return axes


def depth_curves_text(results: pd.DataFrame) -> str:
    """Where the curves of `plot_depth_curves` end, a line a network."""
    return "\n".join(
        f"{_kind(row.residual)}, {row.depth} layers, epoch {row.epoch}: "
        f"training error {row.train_error:.2%}, test error {row.test_error:.2%}"
        for row in _last_errors(results).itertuples()
    )


def plot_depth(results: pd.DataFrame, published: dict[int, float], ax: Axes | None = None) -> Axes:
    """Training and test error after the last epoch over depth, plain and residual, beside published test errors.

    Args:
        results: as `plot_depth_curves` takes them.
        published: test error by depth of residual networks: `cnnlesson.depth.PUBLISHED_TEST_ERROR`.
    """
    ax = ax or _new_axes()
    last = _last_errors(results)
    for is_residual, colour in ((False, PLAIN_COLOUR), (True, RESIDUAL_COLOUR)):
        errors = last[last["residual"] == is_residual]
        for column, style, name in (("train_error", "o--", "training"), ("test_error", "o-", "test")):
            ax.plot(errors["depth"], 100 * errors[column], style, color=colour, label=f"{_kind(is_residual)}, {name}")
    ax.plot(
        published.keys(),
        [100 * error for error in published.values()],
        "D:",
        color="grey",
        markerfacecolor="white",
        label="residual, test, as published\n(He et al., 2015; not measured here)",
    )
    ax.set_xticks(sorted({*last["depth"], *published}))
    ax.set_xlabel("depth (layers)")
    ax.set_ylabel("error (%)")
    ax.set_ylim(bottom=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def depth_text(results: pd.DataFrame, published: dict[int, float]) -> str:
    """The facts of `plot_depth`: a line a network, and one for the published errors."""
    errors = ", ".join(f"{depth} layers {error:.2%}" for depth, error in published.items())
    return f"{depth_curves_text(results)}\nresidual, test error as published (He et al., 2015): {errors}"


def plot_gradient_norms(gradients: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """The norm of the gradient in each layer of the deepest plain and residual network, from the images to the logits.

    On the left before training, on the right after one epoch.

    Args:
        gradients: a row a network, epoch and layer, with the columns depth, residual, seed, epochs_done, layer and
            norm, such as `cnnlesson.reference.load("cifar10_gradients").table`; of several seeds the first is drawn.
        axes: two, side by side.
    """
    axes = axes if axes is not None else _new_pair_of_axes()
    gradients = _deepest(gradients)
    for ax, epochs_done, title in zip(axes, (0, 1), ("at initialisation", "after one epoch"), strict=True):
        for is_residual, colour in ((False, PLAIN_COLOUR), (True, RESIDUAL_COLOUR)):
            norms = gradients[(gradients["residual"] == is_residual) & (gradients["epochs_done"] == epochs_done)][
                "norm"
            ]
            ax.semilogy(range(1, len(norms) + 1), norms, ".-", color=colour, label=_kind(is_residual))
        ax.set_title(f"{title}, {gradients['depth'].max()} layers")
        ax.set_xlabel("layer, from the images on")
        ax.set_ylabel("norm of the gradient")
        ax.spines[["top", "right"]].set_visible(False)
    axes[1].legend(frameon=False)
    return axes


def gradient_norms_text(gradients: pd.DataFrame) -> str:
    """The facts of `plot_gradient_norms` in short, a line a curve."""
    lines = []
    for (residual, depth, epochs_done), curve in _deepest(gradients).groupby(["residual", "depth", "epochs_done"]):
        if epochs_done > 1:
            continue
        norms = curve["norm"]
        when = "after one epoch" if epochs_done else "before training"
        lines.append(
            f"{_kind(residual)}, {depth} layers, {when}: first layer {norms.iloc[0]:.2g}, "
            f"last layer {norms.iloc[-1]:.2g}, smallest {norms.min():.2g}, largest {norms.max():.2g}"
        )
    return "\n".join(lines)


def plot_residual_sizes(sizes: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The size of F(x) beside that of x, block by block through a residual network.

    Args:
        sizes: from `cnnlesson.signals.residual_sizes`.
    """
    ax = ax or _new_axes()
    places = range(1, len(sizes) + 1)
    ax.plot(places, sizes["x_size"], "o-", color="grey", label="x, what the shortcut carries")
    ax.plot(places, sizes["residual_size"], "o-", color=RESIDUAL_COLOUR, label="F(x), what the block adds")
    stages = sizes["block"].str.split(".").str[0]
    for place in places[1:]:
        if stages.iloc[place - 1] != stages.iloc[place - 2]:
            ax.axvline(place - 0.5, color="lightgrey", zorder=0)  # here the channels double
    ax.set_xlabel("residual block, from the images on")
    ax.set_ylabel("root mean square")
    ax.set_ylim(bottom=0)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax


def residual_sizes_text(sizes: pd.DataFrame) -> str:
    """The facts of `plot_residual_sizes`, a line a block."""
    return "\n".join(
        f"{row.block}: x {row.x_size:.2f}, F(x) {row.residual_size:.2f}, ratio {row.residual_size / row.x_size:.2f}"
        for row in sizes.itertuples()
    )


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` as a PNG file; what stood at `path` stays until the new one is whole."""
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=150)


def _mean_errors(results: pd.DataFrame) -> pd.DataFrame:
    """Training and test error by residual, depth and epoch: the mean over the seeds."""
    return results.groupby(["residual", "depth", "epoch"])[["train_error", "test_error"]].mean().reset_index()


def _last_errors(results: pd.DataFrame) -> pd.DataFrame:
    return _mean_errors(results).groupby(["residual", "depth"]).tail(1)


def _deepest(gradients: pd.DataFrame) -> pd.DataFrame:
    is_drawn = (gradients["depth"] == gradients["depth"].max()) & (gradients["seed"] == gradients["seed"].min())
    return gradients[is_drawn]


def _kind(is_residual: bool) -> str:
    return "residual" if is_residual else "plain"


def _new_axes() -> Axes:
    _, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    return ax


def _new_pair_of_axes() -> Sequence[Axes]:
    _, axes = plt.subplots(1, 2, figsize=(9.6, 4.2), sharey=True, layout="constrained")
    return axes
