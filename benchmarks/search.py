"""The forecast of a grid search, compared with the time that the search takes, for the nine points of lesson 4.

    python benchmarks/search.py --model resnet18 --images 600 --epochs 2

The images are those of `shapes`, generated on the spot. Learning rates are low enough that no trial diverges: a
diverged trial ends early, which no forecast can predict.
"""

import argparse
import functools
import tempfile
import time
from pathlib import Path

from cnnlesson.data import shapes, split, take
from cnnlesson.experiments.trial import run
from cnnlesson.models import AlexNet, resnet18
from cnnlesson.runtime.device import describe, find_device
from cnnlesson.runtime.memory import reuse_freed_memory
from cnnlesson.search import GridSearch

GRID = {"lr": [0.002, 0.001, 0.0001], "batch_size": [16, 32, 64], "weight_decay": [0.0005]}
NETWORKS = {"alexnet": (lambda: AlexNet(10, dropout=0), 227), "resnet18": (lambda: resnet18(10), 64)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, choices=NETWORKS)
    parser.add_argument("--images", required=True, type=int, help="training and validation images")
    parser.add_argument("--epochs", required=True, type=int)
    parser.add_argument("--repeats", type=int, default=2, help="searches (2)")
    options = parser.parse_args()
    reuse_freed_memory()
    train_set, val_set = split(take(shapes(seed=0).train, options.images, seed=0), (0.8, 0.2), seed=0)
    print(f"{options.model}, {len(train_set)} + {len(val_set)} images, on {describe(find_device(None))}")
    build_model, image_size = NETWORKS[options.model]
    trial = functools.partial(
        run,
        train_set=train_set,
        val_set=val_set,
        build_model=build_model,
        image_size=image_size,
        epochs=options.epochs,
        seed=0,
    )
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            search = GridSearch(trial, GRID, Path(folder) / "search.journal")
            table = search.forecast()
            forecast = (table["trials"] * table["seconds"]).sum()
            start = time.perf_counter()
            search.run()
            actual = time.perf_counter() - start
        print(f"forecast {forecast:.1f} s, actual {actual:.1f} s: {forecast / actual - 1:+.0%}\n")


if __name__ == "__main__":
    main()
