"""Figures of splits: the classes in each part, and the folds of cross-validation."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from cnnlesson.plots.figures import TEST_COLOUR, TRAIN_COLOUR, VAL_COLOUR, figure, new_axes, short_name

_MAX_CLASSES = 12
_SLANTED = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}


def class_balance_text(parts: Mapping[str, torch.Tensor], classes: Sequence[str]) -> str:
    """The facts of `plot_class_balance` for all classes, as a table."""
    return _class_shares(parts, classes).map("{:.1%}".format).to_string()


@figure("Bars of the share of each class in each part of a split", class_balance_text)
def plot_class_balance(parts: Mapping[str, torch.Tensor], classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """The share of each of the first twelve classes in each part of a split: a bar per class and part.

    Args:
        parts: the labels (N,) of each part by its name, such as {"training": train_set.labels}.
        classes: the names of the classes.
    """
    shares = _class_shares(parts, classes).iloc[:_MAX_CLASSES]
    ax = ax or new_axes((9.6, 3.2))
    width = 0.8 / len(parts)
    for number, (name, colour) in enumerate(zip(parts, (TRAIN_COLOUR, VAL_COLOUR, TEST_COLOUR), strict=False)):
        places = [place + (number - (len(parts) - 1) / 2) * width for place in range(len(shares))]
        bars = ax.bar(places, 100 * shares[name], width=0.92 * width, color=colour, label=name)
        if len(shares) <= 4:
            ax.bar_label(bars, fmt="%.0f", padding=2)
    ax.set_xticks(range(len(shares)), map(short_name, shares.index), **_SLANTED if len(shares) > 4 else {})
    ax.set_ylabel("share of the part (%)")
    ax.margins(x=0.02, y=0.3)  # room for the legend above the tallest bar
    ax.legend(ncols=len(parts), loc="upper right", borderaxespad=0)
    return ax


def _class_shares(parts: Mapping[str, torch.Tensor], classes: Sequence[str]) -> pd.DataFrame:
    counts = _class_counts(parts, classes)
    return counts / counts.sum()


def _class_counts(parts: Mapping[str, torch.Tensor], classes: Sequence[str]) -> pd.DataFrame:
    """The number of images by class (rows) and part (columns)."""
    counts = {name: torch.bincount(labels.cpu(), minlength=len(classes)).numpy() for name, labels in parts.items()}
    return pd.DataFrame(counts, index=list(classes))


def folds_text(folds: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> str:
    """The facts of `plot_folds`, one line per fold."""
    return "\n".join(
        f"fold {number}: trains on {len(train)} images, validates on {', '.join(map(str, sorted(validation.tolist())))}"
        for number, (train, validation) in enumerate(folds, start=1)
    )


@figure("Which images each fold trains on and which it validates on: a row per fold", folds_text)
def plot_folds(folds: Sequence[tuple[torch.Tensor, torch.Tensor]], ax: Axes | None = None) -> Axes:
    """Which images each fold trains on and which it validates on: a row per fold, a cell per image.

    Args:
        folds: the indices of the training and of the validation images of each fold; a few dozen images are readable.
    """
    num_images = 1 + max(int(part.max()) for fold in folds for part in fold)
    use = torch.full((len(folds), num_images), float("nan"))
    for row, (train, validation) in enumerate(folds):
        use[row, train], use[row, validation] = 0, 1
    ax = ax or new_axes((9.6, 0.4 * len(folds) + 1))
    colours = ListedColormap([TRAIN_COLOUR, VAL_COLOUR])
    ax.pcolormesh(use.numpy(), cmap=colours, vmin=0, vmax=1, edgecolors="white", linewidth=1)
    ax.invert_yaxis()
    ax.set_yticks([row + 0.5 for row in range(len(folds))], [f"fold {row + 1}" for row in range(len(folds))])
    ax.set_xlabel("image")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    handles = [Patch(color=TRAIN_COLOUR, label="training"), Patch(color=VAL_COLOUR, label="validation")]
    # Above the cells, where the legend takes no width from them.
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=2)
    return ax


def fold_balance_text(folds: Sequence[torch.Tensor], classes: Sequence[str]) -> str:
    """The facts of `plot_fold_balance` for all classes, as a table."""
    return _fold_counts(folds, classes).to_string()


@figure("The number of images of each class in the validation part of each fold", fold_balance_text)
def plot_fold_balance(folds: Sequence[torch.Tensor], classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """The number of images of each of the first twelve classes in the validation part of each fold: a row per fold.

    Args:
        folds: the labels (N,) of the validation part of each fold.
        classes: the names of the classes.
    """
    counts = _fold_counts(folds, classes).iloc[:_MAX_CLASSES].T
    ax = ax or new_axes((9.6, 0.4 * len(folds) + 1.4))
    ax.imshow(counts, aspect="auto", vmin=0, vmax=2 * counts.to_numpy().max() + 1, cmap="Blues")  # light behind text
    for row, of_fold in enumerate(counts.to_numpy()):
        for column, count in enumerate(of_fold):
            ax.text(column, row, count, ha="center", va="center")
    ax.set_xticks(range(counts.shape[1]), map(short_name, counts.columns), **_SLANTED)
    ax.set_yticks(range(len(folds)), counts.index)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def _fold_counts(folds: Sequence[torch.Tensor], classes: Sequence[str]) -> pd.DataFrame:
    return _class_counts({f"fold {number}": labels for number, labels in enumerate(folds, 1)}, classes)
