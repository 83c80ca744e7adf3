"""Published figures about AlexNet, compared with what its layers imply."""

import pandas as pd

from cnnlesson.anatomy import arithmetic, layer_table, product_text
from cnnlesson.models import AlexNet, TwoTowerAlexNet

# Krizhevsky, Sutskever and Hinton (2012), caption of figure 2: the number of inputs and neurons.
CAPTION = {"input": 150_528, "conv1": 253_440, "conv2": 186_624, "conv3": 64_896, "conv4": 64_896, "conv5": 43_264}
CAPTION |= {"fc6": 4096, "fc7": 4096, "fc8": 1000}

# The layer table on the lesson's slide, as printed, with the columns of `layer_table`.
SLIDE = {
    "conv1": (3, 227, 64, 11, 4, 2, 64, 56, 784, 23, 73),
    "pool1": (64, 56, None, 3, 2, 0, 64, 27, 182, 0, 0),
    "conv2": (64, 27, 192, 5, 1, 2, 192, 27, 547, 307, 224),
    "pool2": (192, 27, None, 3, 2, 0, 192, 13, 127, 0, 0),
    "conv3": (192, 13, 384, 3, 1, 1, 384, 13, 254, 664, 112),
    "conv4": (384, 13, 256, 3, 1, 1, 256, 13, 169, 885, 145),
    "conv5": (256, 13, 256, 3, 1, 1, 256, 13, 169, 590, 100),
    "pool5": (256, 13, None, 3, 2, 0, 256, 6, 36, 0, 0),
    "flatten": (256, 6, None, None, None, None, 9216, None, 36, 0, 0),
}


def audit_caption() -> pd.DataFrame:
    """The figures in the paper's caption, one per row, with published, computed, agrees and arithmetic.

    Computed is the number of output values of each layer of `TwoTowerAlexNet`, for 227×227 pixels.
    """
    table = layer_table(TwoTowerAlexNet(num_classes=1000), (3, 227, 227)).astype(object)  # integers stay integers
    rows = []
    for layer, published in CAPTION.items():
        channels, size = (3, 227) if layer == "input" else table.loc[layer, ["out_channels", "out_size"]]
        computed, arithmetic = channels, "set by the architecture"
        if not pd.isna(size):
            computed = channels * size * size
            arithmetic = f"{product_text([channels, size, size])} = {computed:,}"
        rows.append((layer, published, computed, published == computed, arithmetic))
    audit = pd.DataFrame(rows, columns=["layer", "published", "computed", "agrees", "arithmetic"]).set_index("layer")
    audit.loc["input", "arithmetic"] += "; 3·224·224 = 150,528, but (224 - 11) / 4 + 1 = 54.25 is not an integer"
    audit.loc["conv1", "arithmetic"] += "; 253,440 / 96 = 2,640 is not a square"
    return audit


def audit_slide() -> pd.DataFrame:
    """The same for the figures in the slide's table, which agree if the `layer_table` of `AlexNet` rounds to them."""
    model = AlexNet(num_classes=1000, dropout=0.5)
    table = layer_table(model, (3, 227, 227)).astype(object)
    rows = []
    for layer, figures in SLIDE.items():
        how = arithmetic(model.get_submodule(layer), table.loc[layer])
        for column, published in zip(table.columns, figures, strict=True):
            if published is not None:
                computed = table.loc[layer, column]
                agrees = published == round(computed)
                rows.append((layer, column, published, computed, agrees, how.get(column, "set by the architecture")))
    columns = ["layer", "column", "published", "computed", "agrees", "arithmetic"]
    return pd.DataFrame(rows, columns=columns).set_index(["layer", "column"])
