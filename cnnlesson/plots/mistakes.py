"""Figures of a network's mistakes: which classes it confuses, and the images it gets most wrong."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from sklearn.metrics import confusion_matrix

from cnnlesson.data import ImageSet
from cnnlesson.plots.figures import PLAIN_COLOUR, VAL_COLOUR, describe, lesson_style, new_axes, readable_on, short_name
from cnnlesson.plots.pictures import plot_image

_MAX_CLASSES = 10

_RIGHT = LinearSegmentedColormap.from_list("right", ["white", VAL_COLOUR])
_WRONG = LinearSegmentedColormap.from_list("wrong", ["white", PLAIN_COLOUR])


@lesson_style
def plot_confusion(
    labels: torch.Tensor, predicted: torch.Tensor, classes: Sequence[str], ax: Axes | None = None
) -> Axes:
    """The confusion matrix: a row per true class, a column per predicted class.

    With more than ten classes, the ten most confused are shown: the classes of the most frequent confusions of two
    classes, in either direction, until there are ten. A last column counts the images that were taken for any other
    class, so that every row is complete.

    A cell contains the number of images. Its colour is its share of the row: blue if the network is right, orange if
    it is wrong.

    Args:
        labels, predicted: the true and the predicted classes as integers, (N,) each.
        classes: the name of each class.
    """
    counts = _confusion(labels, predicted, classes)
    ax = ax or new_axes((9.6, 0.42 * len(counts) + 1.8))
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0).to_numpy()  # a class may have no images
    is_right = np.equal.outer(counts.index, counts.columns)
    colours = np.where(is_right[..., None], _RIGHT(shares), _WRONG(shares))  # (rows, columns, 4)
    ax.imshow(colours, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        if count or is_right[row, column]:
            ax.text(column, row, count, ha="center", va="center", color=readable_on(colours[row, column]))
    for place in range(1, max(counts.shape)):
        ax.axvline(place - 0.5, color="white", linewidth=2)
        ax.axhline(place - 0.5, color="white", linewidth=2)
    names = [short_name(name) for name in counts.columns]
    ax.set_xticks(range(counts.shape[1]), names, rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(counts)), names[: len(counts)])
    ax.set(xlim=(-0.5, counts.shape[1] - 0.5), ylim=(len(counts) - 0.5, -0.5), frame_on=False)
    ax.set(xlabel="predicted class (blue: right, orange: wrong)", ylabel="true class")
    ax.tick_params(length=0)
    alt = "A confusion matrix: a row per true class, a column per predicted class"
    return describe(ax, alt, "\n".join(_row_text(name, row) for name, row in counts.iterrows()))


def _row_text(name: str, row: pd.Series) -> str:
    """A row of a confusion matrix as text, the most frequent mistake first."""
    wrong = row.drop(name)
    mistakes = wrong[wrong > 0].sort_values(ascending=False, kind="stable")
    parts = [f", {count} taken for {other}" for other, count in mistakes.items()]
    return f"{name}: {row[name]} of {row.sum()} right{''.join(parts)}"


def _confusion(labels: torch.Tensor, predicted: torch.Tensor, classes: Sequence[str]) -> pd.DataFrame:
    """The number of images by true class (rows) and predicted class (columns), for the classes that are shown."""
    counts = confusion_matrix(labels.cpu(), predicted.cpu(), labels=range(len(classes)))
    counts = pd.DataFrame(counts, index=list(classes), columns=list(classes))
    if len(classes) <= _MAX_CLASSES:
        return counts
    mistakes = counts.to_numpy() + counts.to_numpy().T
    first, second = np.triu_indices(len(classes), k=1)
    order = np.argsort(-mistakes[first, second], kind="stable")
    chosen = dict.fromkeys(np.stack([first, second], axis=1)[order].ravel().tolist())  # each class once, in order
    chosen = sorted(list(chosen)[:_MAX_CLASSES])
    shown = counts.iloc[chosen, chosen]
    return shown.assign(**{"another class": counts.iloc[chosen].sum(axis=1) - shown.sum(axis=1)})


@lesson_style
def plot_most_wrong(
    image_set: ImageSet, labels: torch.Tensor, probabilities: torch.Tensor, axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """The ten mistakes that the network is surest of: the wrong class has the highest probability.

    Args:
        image_set: the images.
        labels, probabilities: what `cnnlesson.training.predict` returned for batches of these images, in their order.
        axes: ten, in any arrangement.

    Raises:
        ValueError: the labels are not those of the images, since the batches were in another order.
    """
    labels = labels.cpu()
    if not torch.equal(labels, image_set.labels.cpu()):
        raise ValueError(
            "the predictions are not of these images in this order: make the batches for predict from the same set, "
            "without a seed"
        )
    surest, predicted = probabilities.cpu().max(dim=1)
    mistakes = (predicted != labels).nonzero().flatten()
    mistakes = mistakes[surest[mistakes].argsort(descending=True, stable=True)][:10].tolist()
    if axes is None:
        rows = 1 if len(mistakes) <= 5 else 2
        axes = plt.subplots(rows, 5, figsize=(9.6, 2.8 * rows))[1].flat
    axes, facts = list(axes), []
    for ax in axes:
        ax.set_axis_off()
    for ax, index in zip(axes, mistakes, strict=False):
        right, wrong = image_set.classes[labels[index]], image_set.classes[predicted[index]]
        title = f"{short_name(right)},\ntaken for\n{short_name(wrong)} {surest[index]:.0%}"
        plot_image(ax, image_set.images[index], title)
        facts.append(f"image {index}, {right}, taken for {wrong}, {surest[index]:.0%}")
    if not mistakes:
        axes[0].set_title("every image is right")
        facts.append("the network is right about every image")
    alt = "The images that the network gets most wrong, with the true and the predicted class"
    return describe(axes, alt, "\n".join(facts))
