"""Figures of a network's mistakes: which classes it confuses, and the images it gets most wrong."""

from collections.abc import Iterator, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from sklearn.metrics import confusion_matrix

from cnnlesson.data import ImageSet
from cnnlesson.plots.figures import PLAIN_COLOUR, VAL_COLOUR, figure, new_axes, readable_on, short_name

_MAX_CLASSES = 10
_MAX_IMAGES = 10
_OTHERS = "another class"

_RIGHT = LinearSegmentedColormap.from_list("right", ["white", VAL_COLOUR])
_WRONG = LinearSegmentedColormap.from_list("wrong", ["white", PLAIN_COLOUR])


def confusion_text(labels: torch.Tensor, predicted: torch.Tensor, classes: Sequence[str]) -> str:
    """The facts of `plot_confusion`: one line per class, its most frequent mistake first."""
    lines = []
    for name, row in _confusion(labels, predicted, classes).iterrows():
        wrong = row.drop(name)
        mistakes = wrong[wrong > 0].sort_values(ascending=False, kind="stable")
        parts = [f", {count} taken for {other}" for other, count in mistakes.items()]
        lines.append(f"{name}: {row[name]} of {row.sum()} right{''.join(parts)}")
    return "\n".join(lines)


@figure("A confusion matrix: a row per true class, a column per predicted class", confusion_text)
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
    ax.set_xlim(-0.5, counts.shape[1] - 0.5)
    ax.set_ylim(len(counts) - 0.5, -0.5)
    ax.set_xlabel("predicted class (blue: right, orange: wrong)")
    ax.set_ylabel("true class")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


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
    return shown.assign(**{_OTHERS: counts.iloc[chosen].sum(axis=1) - shown.sum(axis=1)})


def most_wrong_text(image_set: ImageSet, labels: torch.Tensor, probabilities: torch.Tensor) -> str:
    """The facts of `plot_most_wrong`, one line per image."""
    lines = [
        f"image {index}, {right}, taken for {wrong}, {probability:.0%}"
        for index, right, wrong, probability in _mistakes(image_set, labels, probabilities)
    ]
    return "\n".join(lines) or "the network is right about every image"


@figure("The images that the network gets most wrong, with the true and the predicted class", most_wrong_text)
def plot_most_wrong(
    image_set: ImageSet,
    labels: torch.Tensor,
    probabilities: torch.Tensor,
    axes: Sequence[Axes] | None = None,
) -> Sequence[Axes]:
    """The ten mistakes that the network is surest of: the wrong class has the highest probability.

    Args:
        image_set: the images.
        labels, probabilities: what `cnnlesson.training.predict` returned for batches of these images, in their order.
        axes: ten, in any arrangement.

    Raises:
        ValueError: the labels are not those of the images, since the batches were in another order.
    """
    mistakes = list(_mistakes(image_set, labels, probabilities))
    if axes is None:
        rows = 1 if len(mistakes) <= 5 else 2
        axes = plt.subplots(rows, 5, figsize=(9.6, 2.8 * rows))[1].flat
    axes = list(axes)
    for ax in axes:
        ax.axis("off")
    if not mistakes:
        axes[0].set_title("every image is right")
    for ax, (index, right, wrong, probability) in zip(axes, mistakes, strict=False):
        ax.imshow(image_set.images[index].cpu().permute(1, 2, 0).numpy())  # (H, W, 3)
        ax.set_title(f"{short_name(right)},\ntaken for\n{short_name(wrong)} {probability:.0%}", fontsize=11)
    return axes


def _mistakes(
    image_set: ImageSet, labels: torch.Tensor, probabilities: torch.Tensor
) -> Iterator[tuple[int, str, str, float]]:
    """Index, true class, predicted class and its probability for each image that is shown, the surest mistake first."""
    if not torch.equal(labels.cpu(), image_set.labels.cpu()):
        raise ValueError(
            "the predictions are not of these images in this order: make the batches for predict from the same set, "
            "without a seed"
        )
    surest, predicted = probabilities.cpu().max(dim=1)
    wrong = (predicted != labels.cpu()).nonzero().flatten()
    for index in wrong[surest[wrong].argsort(descending=True, stable=True)][:_MAX_IMAGES].tolist():
        yield index, image_set.classes[labels[index]], image_set.classes[predicted[index]], float(surest[index])
