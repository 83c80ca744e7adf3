import pytest
import torch
from matplotlib import pyplot as plt

from cnnlesson.data import ImageSet
from cnnlesson.plots import description, plot_confusion, plot_most_wrong
from cnnlesson.plots.figures import short_name


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def facts(axes) -> str:
    return description(axes).text


def test_a_row_is_a_true_class_and_a_column_a_predicted_one():
    labels, predicted = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 1, 1, 1])
    ax = plot_confusion(labels, predicted, ["cat", "dog"])
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert cells == {(0, 0): "1", (1, 0): "2", (1, 1): "2"}  # (column, row); a cell without images is empty
    assert [name.get_text() for name in ax.get_yticklabels()] == ["cat", "dog"]
    assert facts(plot_confusion(labels, predicted, ["cat", "dog"])).splitlines() == [
        "cat: 1 of 3 right, 2 taken for dog",
        "dog: 2 of 2 right",
    ]


def test_right_answers_are_blue_and_wrong_ones_orange():
    ax = plot_confusion(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), ["cat", "dog"])
    (right, wrong), (empty, _) = ax.images[0].get_array()[..., :3]
    assert right[2] > right[0] and wrong[0] > wrong[2]
    assert empty.tolist() == [1, 1, 1]


def test_of_many_classes_the_pairs_that_are_confused_most_are_shown_and_rows_stay_complete():
    classes = [f"class {number}" for number in range(30)]
    pairs = [(3, 25, 9), (25, 3, 2), (7, 8, 8), (20, 21, 7), (1, 2, 6), (11, 12, 5), (3, 28, 1)]
    labels = [label for label, _, times in pairs for _ in range(times)] + list(range(30))
    predicted = [other for _, other, times in pairs for _ in range(times)] + list(range(30))
    ax = plot_confusion(torch.tensor(labels), torch.tensor(predicted), classes)
    shown = [1, 2, 3, 7, 8, 11, 12, 20, 21, 25]
    assert [name.get_text() for name in ax.get_yticklabels()] == [classes[number] for number in shown]
    assert ax.get_xticklabels()[-1].get_text() == "another class"
    assert facts(plot_confusion(torch.tensor(labels), torch.tensor(predicted), classes)).splitlines()[2] == (
        "class 3: 1 of 11 right, 9 taken for class 25, 1 taken for another class"
    )


@pytest.fixture
def answers():
    """Twelve images of three classes; the network is wrong about all but the first, and surer with each."""
    labels = torch.tensor([0, 1, 2] * 4)
    images = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1).expand(12, 3, 8, 8).clone()
    classes = ("ice cream, icecream", "toad", "missile, projectile guided thing")
    sure = torch.linspace(0.4, 0.95, 12)
    probabilities = ((1 - sure) / 2)[:, None].repeat(1, 3)
    wrong = (labels + 1) % 3
    wrong[0] = 0
    probabilities[torch.arange(12), wrong] = sure
    return ImageSet(images, labels, classes), labels, probabilities


def test_the_surest_mistakes_come_first(answers):
    axes = plot_most_wrong(*answers)
    assert [int(ax.images[0].get_array()[0, 0, 0]) for ax in axes] == list(range(11, 1, -1))
    assert axes[0].get_title() == "missile,\ntaken for\nice cream 95%"
    assert facts(plot_most_wrong(*answers)).splitlines()[0] == (
        "image 11, missile, projectile guided thing, taken for ice cream, icecream, 95%"
    )


def test_a_network_without_a_mistake_has_a_figure_too(answers):
    image_set, labels, _ = answers
    right = torch.nn.functional.one_hot(labels).float()
    assert plot_most_wrong(image_set, labels, right)[0].get_title() == "every image is right"
    assert facts(plot_most_wrong(image_set, labels, right)) == "the network is right about every image"


def test_predictions_in_another_order_than_the_images_are_refused(answers):
    image_set, labels, probabilities = answers
    with pytest.raises(ValueError, match="not of these images in this order"):
        plot_most_wrong(image_set, labels.roll(1), probabilities.roll(1, dims=0))


def test_a_long_name_is_its_first_synonym_or_its_beginning():
    assert short_name("toad") == "toad"
    assert short_name("ice cream, icecream") == "ice cream"
    assert short_name("Old English sheepdog, bobtail") == "Old English sheep…"
