"""What is true of every figure of the lesson."""

import inspect
from html.parser import HTMLParser

import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.text import Text

from cnnlesson import plots
from cnnlesson.anatomy import layer_table
from cnnlesson.data import ImageSet
from cnnlesson.models import cifar_resnet
from cnnlesson.plots import blank, show
from cnnlesson.plots.figures import bundle, description
from cnnlesson.training import Epoch

FIGURES = {name: function for name, function in vars(plots).items() if name.startswith("plot_")}

LABELS = torch.tensor([0, 1, 2] * 4)
CLASSES = ("cat", '<b>"dogs" & wolves</b>', "ice cream, icecream")
IMAGES = ImageSet(torch.zeros(12, 3, 8, 8, dtype=torch.uint8), LABELS, CLASSES)
PROBABILITIES = torch.tensor([[0.2, 0.7, 0.1]]).expand(12, 3)
GRID = pd.DataFrame(
    [(lr, size, 5e-4, 1, 0.5, 0.4, False, "completed") for lr in (0.1, 0.01) for size in (16, 32)],
    columns=["lr", "batch_size", "weight_decay", "epoch", "train_accuracy", "val_accuracy", "diverged", "state"],
)
DEPTHS = pd.DataFrame(
    [(depth, residual, 0, epoch, 0.4, 0.5) for depth in (20, 56) for residual in (False, True) for epoch in (1, 2)],
    columns=["depth", "residual", "seed", "epoch", "train_error", "test_error"],
)
GRADIENTS = pd.DataFrame(
    [(8, residual, 0, done, layer, 1.5) for residual in (False, True) for done in (0, 1) for layer in range(8)],
    columns=["depth", "residual", "seed", "epochs_done", "layer", "norm"],
)
SIGNALS = pd.DataFrame(
    [(network, layer, 1.5, 0.5) for network in ("plain", "residual") for layer in range(4)],
    columns=["network", "layer", "activation", "gradient"],
)
SIZES = pd.DataFrame({"block": ["layer1.0", "layer2.0"], "x_size": [1.0, 2.0], "residual_size": [0.5, 0.5]})
LEAKS = pd.DataFrame({"train_index": [0], "other_index": [1], "kind": ["exact"], "distance": [0.0]})

ARGUMENTS = {
    "plot_architecture": (cifar_resnet(8, 10), (3, 32, 32)),
    "plot_class_balance": ({"training": LABELS, "validation": LABELS}, CLASSES),
    "plot_confusion": (LABELS, LABELS.flip(0), CLASSES),
    "plot_convolution": (7, 3, 2, 1),
    "plot_depth": (DEPTHS, {20: 0.0875, 110: 0.0643}),
    "plot_depth_curves": (DEPTHS,),
    "plot_feature_maps": (torch.rand(20, 8, 8),),
    "plot_filters": (torch.rand(20, 3, 5, 5),),
    "plot_fold_balance": ([LABELS, LABELS], CLASSES),
    "plot_folds": ([(torch.tensor([0, 1]), torch.tensor([2])), (torch.tensor([1, 2]), torch.tensor([0]))],),
    "plot_gradient_norms": (GRADIENTS,),
    "plot_grid": (GRID,),
    "plot_history": ([Epoch(n, 3, 2.0, 0.1 * n, 2.1, 0.05 * n, 0.01, 10.0, 100.0, False) for n in (1, 2, 3)],),
    "plot_images": (IMAGES,),
    "plot_layers": (layer_table(cifar_resnet(8, 10), (3, 32, 32)),),
    "plot_leaks": (IMAGES, IMAGES, LEAKS),
    "plot_most_wrong": (IMAGES, LABELS, PROBABILITIES),
    "plot_receptive_field": (IMAGES.images[0], (-2, 0, 4, 6), torch.rand(4, 4), 0, 1),
    "plot_residual_sizes": (SIZES,),
    "plot_signals": (SIGNALS,),
    "plot_trials": (GRID,),
    "plot_weight_decay": (GRID.drop_duplicates("weight_decay"),),
}

every_figure = pytest.mark.parametrize("name", FIGURES)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


class Page(HTMLParser):
    """The alt text of the images of a page, and the text of its <pre>, as a browser reads them."""

    def __init__(self, page: str):
        super().__init__()
        self.alts, self.tags, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.alts.append(dict(attributes)["alt"])

    def handle_data(self, data):
        if self.tags[-1] == "pre":
            self.text += data


def test_every_figure_is_tried_here():
    assert set(ARGUMENTS) == set(FIGURES)


@every_figure
def test_a_figure_has_alt_text_and_its_facts_as_text(name):
    alt, text = description(FIGURES[name](*ARGUMENTS[name]))
    sentence, _, facts = alt.partition(f": {text}")
    assert len(sentence) > 20 and facts == "" and "\n" not in alt
    assert text.strip()
    assert text not in sentence


@every_figure
def test_alt_text_and_facts_arrive_on_the_page(name):
    axes = FIGURES[name](*ARGUMENTS[name])
    alt, text = description(axes)
    page = Page(bundle(axes)["text/html"])
    assert page.alts == [alt]
    assert page.text == text
    assert page.tags == ["div", "img", "details", "summary", "pre"]  # the class called <b>... added none


@every_figure
def test_a_figure_is_drawn_on_the_axes_it_is_given(name):
    shown = FIGURES[name](*ARGUMENTS[name])
    plt.close("all")
    if "ax" in inspect.signature(FIGURES[name]).parameters:
        given = blank()
        assert FIGURES[name](*ARGUMENTS[name], ax=given) is given
    else:
        given = list(blank(1, len(list(shown))))
        assert list(FIGURES[name](*ARGUMENTS[name], axes=given)) == given
    assert plt.get_fignums() == []


@every_figure
def test_a_figure_that_is_shown_is_closed(name):
    bundle(FIGURES[name](*ARGUMENTS[name]))
    assert plt.get_fignums() == []


def test_show_displays_picture_and_text_and_closes_the_figure(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    axes = FIGURES["plot_grid"](GRID)
    alt, text = description(axes)
    show(axes)
    assert plt.get_fignums() == []
    (data,) = shown
    assert Page(data["text/html"]).alts == [alt] and Page(data["text/html"]).text == text
    assert data["text/plain"] == f"{alt}\n{text}"


DOLLARS = ("a$b$", "$x", r"$\frac$")  # the last one is an error in a formula
PRICED = ImageSet(IMAGES.images, LABELS, DOLLARS)
OF_CLASSES = {
    "plot_class_balance": ({"$a$": LABELS, r"$\frac$": LABELS}, DOLLARS),
    "plot_confusion": (LABELS, LABELS.flip(0), DOLLARS),
    "plot_fold_balance": ([LABELS, LABELS], DOLLARS),
    "plot_images": (PRICED,),
    "plot_leaks": (PRICED, PRICED, LEAKS),
    "plot_most_wrong": (PRICED, LABELS, PROBABILITIES),
}


@pytest.mark.parametrize("is_given", [False, True])
@pytest.mark.parametrize("name", OF_CLASSES)
def test_a_name_with_dollar_signs_is_no_formula(name, is_given):
    function, arguments = FIGURES[name], OF_CLASSES[name]
    axes = function(*arguments)
    if is_given:  # axes that were made without the look of the lesson
        count = 1 if isinstance(axes, Axes) else len(list(axes))
        given = plt.subplots(1, count, squeeze=False)[1][0]
        axes = function(*arguments, given[0] if count == 1 else given)
    drawn = (axes if isinstance(axes, Axes) else next(iter(axes))).figure
    drawn.canvas.draw()
    texts = [text for text in drawn.findobj(Text) if "$" in text.get_text()]
    assert "$x" in "".join(text.get_text() for text in texts)
    for text in texts:
        width = text.get_window_extent().width
        text.set(parse_math=True, text=text.get_text().replace("$", r"\$"))  # how a formula's sign is drawn as it is
        assert text.get_window_extent().width == width


@every_figure
def test_text_can_be_read_from_the_last_row(name):
    axes = FIGURES[name](*ARGUMENTS[name])
    drawn = axes.figure if isinstance(axes, Axes) else next(iter(axes)).figure
    small = [text for text in drawn.findobj(Text) if text.get_text() and text.get_fontsize() < 10]
    assert small == []
