"""A grid search's forecast beside its actual time, and two workers beside one, over the lesson's nine points.

    python benchmarks/search.py --model resnet18 --images 600 --epochs 2

Each run is a new search on `shapes`, made on the spot. Learning rates are low enough that no trial diverges, since one
that does ends early, which no forecast can know.
"""

import argparse
import tempfile
import time
from pathlib import Path

from cnnlesson.data import shapes, split, take
from cnnlesson.experiments.exercise import Exercise, Images, Plan, Setting
from cnnlesson.runtime.device import describe, find_device
from cnnlesson.runtime.memory import reuse_freed_memory

GRID = {"lr": [0.002, 0.001, 0.0001], "batch_size": [16, 32, 64], "weight_decay": [0.0005]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, choices=("alexnet", "resnet18"))
    parser.add_argument("--images", required=True, type=int, help="training and validation images")
    parser.add_argument("--epochs", required=True, type=int)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 1, 2], help="of each run, in turn (1 2 1 2)")
    options = parser.parse_args()

    reuse_freed_memory()
    data = shapes(seed=0)
    train_set, val_set = split(take(data.train, options.images, seed=0), (0.8, 0.2), seed=0)
    image_size = 227 if options.model == "alexnet" else 64
    setting = Setting(options.model, image_size, small_images=False, dropout=0, augment=False, epochs=options.epochs)
    print(f"{options.model}, {len(train_set)} + {len(val_set)} images, on {describe(find_device(None))}")
    seconds = {}
    for workers in options.workers:
        with tempfile.TemporaryDirectory() as folder:
            plan = Plan(
                grid=GRID,
                seeds=[0],
                decays_at_best=[],
                out=Path(folder),
                storage=None,
                name=None,
                workers=workers,
                prune=False,
                retry_failed=False,
                device=None,
            )
            search = Exercise(setting, Images("shapes", train_set, val_set, data.test), plan).grid
            search.forecast(workers)
            forecast = search._forecasts[workers]
            start = time.perf_counter()
            search.run(workers)
            actual = time.perf_counter() - start
        seconds.setdefault(workers, []).append(actual)
        print(f"{workers} workers: forecast {forecast:.0f} s, actual {actual:.0f} s, {forecast / actual - 1:+.0%}\n")
    one = min(seconds[1])
    for workers, times in seconds.items():
        each = ", ".join(f"{time:.0f}" for time in times)
        print(f"{workers} workers: {each} s, {one / min(times):.2f} times as fast as one")


if __name__ == "__main__":
    main()
