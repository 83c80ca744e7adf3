"""Figures of splits: the classes in each part, and the folds of cross-validation."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from cnnlesson.plots.figures import TEST_COLOUR, TRAIN_COLOUR, VAL_COLOUR, describe, lesson_style, new_axes, short_name

_MAX_CLASSES = 12
_SLANTED = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}


@lesson_style
def plot_class_balance(parts: Mapping[str, torch.Tensor], classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """The share of each of the first twelve classes in each part of a split: a bar per class and part.

    Args:
        parts: the labels (N,) of each part by its name, such as {"training": train_set.labels}.
        classes: the names of the classes.
    """
    counts = _class_counts(parts, classes)
    shares = counts / counts.sum()
    shown = 100 * shares.iloc[:_MAX_CLASSES]
    ax = ax or new_axes((9.6, 3.2))
    width = 0.8 / len(parts)
    for number, (name, colour) in enumerate(zip(parts, (TRAIN_COLOUR, VAL_COLOUR, TEST_COLOUR), strict=False)):
        places = np.arange(len(shown)) + (number - (len(parts) - 1) / 2) * width
        bars = ax.bar(places, shown[name], width=0.92 * width, color=colour, label=name)
        if len(shown) <= 4:
            ax.bar_label(bars, fmt="%.0f", padding=2)
    ax.set_xticks(range(len(shown)), map(short_name, shown.index), **_SLANTED if len(shown) > 4 else {})
    ax.set_ylabel("share of the part (%)")
    ax.margins(x=0.02, y=0.3)  # room for the legend above the tallest bar
    ax.legend(ncols=len(parts), loc="upper right", borderaxespad=0)
    facts = shares.map("{:.1%}".format).to_string()
    return describe(ax, "Bars of the share of each class in each part of a split", facts)


def _class_counts(parts: Mapping[str, torch.Tensor], classes: Sequence[str]) -> pd.DataFrame:
    """The number of images by class (rows) and part (columns)."""
    counts = {name: torch.bincount(labels.cpu(), minlength=len(classes)).numpy() for name, labels in parts.items()}
    return pd.DataFrame(counts, index=list(classes))


@lesson_style
def plot_folds(folds: Sequence[tuple[torch.Tensor, torch.Tensor]], ax: Axes | None = None) -> Axes:
    """Which images each fold trains on and which it validates on: a row per fold, a cell per image.

    Args:
        folds: the indices of the training and of the validation images of each fold; a few dozen images are readable.
    """
    num_images = 1 + max(int(part.max()) for fold in folds for part in fold)
    use = torch.full((len(folds), num_images), float("nan"))
    names, facts = [f"fold {number}" for number in range(1, len(folds) + 1)], []
    for row, (train, validation) in enumerate(folds):
        use[row, train], use[row, validation] = 0, 1
        validated = ", ".join(map(str, sorted(validation.tolist())))
        facts.append(f"{names[row]}: trains on {len(train)} images, validates on {validated}")
    ax = ax or new_axes((9.6, 0.4 * len(folds) + 1))
    colours = ListedColormap([TRAIN_COLOUR, VAL_COLOUR])
    ax.pcolormesh(use.numpy(), cmap=colours, vmin=0, vmax=1, edgecolors="white", linewidth=1)
    ax.invert_yaxis()
    ax.set_yticks(np.arange(len(folds)) + 0.5, names)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.tick_params(length=0)
    ax.set(xlabel="image", frame_on=False)
    handles = [Patch(color=TRAIN_COLOUR, label="training"), Patch(color=VAL_COLOUR, label="validation")]
    # Above the cells, where the legend takes no width from them.
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=2)
    return describe(ax, "Which images each fold trains on and which it validates on: a row per fold", "\n".join(facts))


@lesson_style
def plot_fold_balance(folds: Sequence[torch.Tensor], classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """The number of images of each of the first twelve classes in the validation part of each fold: a row per fold.

    Args:
        folds: the labels (N,) of the validation part of each fold.
        classes: the names of the classes.
    """
    counts = _class_counts({f"fold {number}": labels for number, labels in enumerate(folds, 1)}, classes)
    shown = counts.iloc[:_MAX_CLASSES].T
    ax = ax or new_axes((9.6, 0.4 * len(folds) + 1.4))
    ax.imshow(shown, aspect="auto", vmin=0, vmax=2 * shown.to_numpy().max() + 1, cmap="Blues")  # light behind text
    for (row, column), count in np.ndenumerate(shown):
        ax.text(column, row, count, ha="center", va="center")
    ax.set_xticks(range(shown.shape[1]), map(short_name, shown.columns), **_SLANTED)
    ax.set_yticks(range(len(folds)), shown.index)
    ax.tick_params(length=0)
    ax.set(frame_on=False)
    alt = "The number of images of each class in the validation part of each fold"
    return describe(ax, alt, counts.to_string())
