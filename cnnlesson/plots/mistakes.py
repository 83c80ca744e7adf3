"""Figures of a network's mistakes: which classes it takes for which, and the images that it gets most wrong."""

import textwrap
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

_MOST_CLASSES = 10
_MOST_IMAGES = 10
_OTHERS = "another class"

_RIGHT = LinearSegmentedColormap.from_list("right", ["white", VAL_COLOUR])
_WRONG = LinearSegmentedColormap.from_list("wrong", ["white", PLAIN_COLOUR])


def confusion_text(labels: torch.Tensor, predicted: torch.Tensor, classes: Sequence[str]) -> str:
    """The facts of `plot_confusion`: a line a class, with what its images were taken for, most often first."""
    counts = _confusion(labels, predicted, classes)
    lines = []
    for name, row in counts.iterrows():
        wrong = row.drop(name)
        mistakes = wrong[wrong > 0].sort_values(ascending=False, kind="stable")
        lines.append(
            f"{name}: {row[name]} of {row.sum()} right"
            + "".join(f", {count} taken for {other}" for other, count in mistakes.items())
        )
    return "\n".join(lines)


@figure("A table of classes: what the images of each are taken for, right ones on its diagonal", confusion_text)
def plot_confusion(
    labels: torch.Tensor, predicted: torch.Tensor, classes: Sequence[str], ax: Axes | None = None
) -> Axes:
    """What the images of each class were taken for: a row what they are, a column what the network says.

    Of more than ten classes the ten most confused are shown: the pairs of classes that are taken for each other most
    often, in either direction, come first, and the classes of further pairs follow until there are ten. A last column
    then counts the images that were taken for a class without a column, so that every row is complete.

    A cell has the number of images. Its colour is its share of the row: blue where the network is right, orange
    where it is wrong.

    Args:
        labels, predicted: what the images are and what the network says, (N,) each, as whole numbers.
        classes: the name of each class.
    """
    counts = _confusion(labels, predicted, classes)
    ax = ax or new_axes((9.6, 0.42 * len(counts) + 1.8))
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0).to_numpy()  # without images there is no share
    is_right = np.equal.outer(counts.index, counts.columns)
    colours = np.where(is_right[..., None], _RIGHT(shares), _WRONG(shares))  # (rows, columns, 4)
    ax.imshow(colours, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        if count or is_right[row, column]:
            colour = readable_on(colours[row, column])
            ax.text(column, row, count, ha="center", va="center", color=colour)
    for place in range(1, max(counts.shape)):
        style = {"color": "white", "linewidth": 2}
        ax.axvline(place - 0.5, **style)
        ax.axhline(place - 0.5, **style)
    names = [short_name(name, 18) for name in counts.columns]
    ax.set_xticks(range(counts.shape[1]), names, rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(counts)), names[: len(counts)])
    ax.set_xlim(-0.5, counts.shape[1] - 0.5)
    ax.set_ylim(len(counts) - 0.5, -0.5)
    ax.set_xlabel("what the network says (blue: right, orange: wrong)")
    ax.set_ylabel("what the images are")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def _confusion(labels: torch.Tensor, predicted: torch.Tensor, classes: Sequence[str]) -> pd.DataFrame:
    """Images by what they are (rows) and what they are taken for (columns), of the classes that are shown."""
    counts = confusion_matrix(labels.cpu(), predicted.cpu(), labels=range(len(classes)))
    counts = pd.DataFrame(counts, index=list(classes), columns=list(classes))
    if len(classes) <= _MOST_CLASSES:
        return counts
    mistakes = counts.to_numpy() + counts.to_numpy().T
    first, second = np.triu_indices(len(classes), k=1)
    order = np.argsort(-mistakes[first, second], kind="stable")
    chosen = dict.fromkeys(np.stack([first, second], axis=1)[order].ravel().tolist())  # each class once, in order
    chosen = sorted(list(chosen)[:_MOST_CLASSES])
    shown = counts.iloc[chosen, chosen]
    return shown.assign(**{_OTHERS: counts.iloc[chosen].sum(axis=1) - shown.sum(axis=1)})


def most_wrong_text(image_set: ImageSet, labels: torch.Tensor, probabilities: torch.Tensor) -> str:
    """The facts of `plot_most_wrong`, a line an image."""
    order = _most_wrong(image_set, labels, probabilities)
    if not len(order):
        return "the network has no image wrong"
    return "\n".join(
        f"image {index} is {right}, the network says {wrong}, {probability:.0%}"
        for index, right, wrong, probability in _answers(image_set, probabilities, order)
    )


@figure("The images that the network gets most wrong, with what each is and what the network says", most_wrong_text)
def plot_most_wrong(
    image_set: ImageSet,
    labels: torch.Tensor,
    probabilities: torch.Tensor,
    axes: Sequence[Axes] | None = None,
) -> Sequence[Axes]:
    """The ten images for which the network gives a wrong class the highest probability, the surest mistake first.

    Args:
        image_set: the images.
        labels, probabilities: what `cnnlesson.training.predict` gave for batches of them, in their order.
        axes: ten, in any arrangement.

    Raises:
        ValueError: the labels are not those of the images: the batches came in another order.
    """
    order = _most_wrong(image_set, labels, probabilities)
    if axes is None:
        rows = 1 if len(order) <= 5 else 2
        axes = plt.subplots(rows, 5, figsize=(9.6, 2.6 * rows))[1].flat
    axes = list(axes)
    for ax in axes:
        ax.axis("off")
    if not len(order):
        axes[0].set_title("no image is wrong")
    for ax, (index, right, wrong, probability) in zip(axes, _answers(image_set, probabilities, order), strict=False):
        ax.imshow(image_set.images[index].cpu().permute(1, 2, 0).numpy())  # (H, W, 3)
        lines = [f"is {short_name(right, 18)},", *textwrap.wrap(f"said {short_name(wrong, 18)} {probability:.0%}", 21)]
        ax.set_title("\n".join(lines), fontsize=11)
    return axes


def _most_wrong(image_set: ImageSet, labels: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Where the images are that the network is wrong about, the surest mistakes first."""
    if not torch.equal(labels.cpu(), image_set.labels.cpu()):
        raise ValueError(
            "the predictions are not of these images in this order: make the batches for predict from the same set, "
            "without a seed"
        )
    surest, predicted = probabilities.cpu().max(dim=1)
    wrong = (predicted != labels.cpu()).nonzero().flatten()
    return wrong[surest[wrong].argsort(descending=True, stable=True)][:_MOST_IMAGES]


def _answers(
    image_set: ImageSet, probabilities: torch.Tensor, order: torch.Tensor
) -> Iterator[tuple[int, str, str, float]]:
    """For each image of `order` its index, its class, the network's class and the probability of that."""
    for index in order.tolist():
        probability, predicted = probabilities[index].max(dim=0)
        yield index, image_set.classes[image_set.labels[index]], image_set.classes[predicted], float(probability)
