"""The cost of the live board: training time with and without it, alternating in one kernel.

    python benchmarks/board.py --images 1000 --epochs 4

Each run trains the same network from scratch on the generated images of `shapes`. There is no board outside a notebook,
so the script starts a kernel and runs itself there.
"""

import argparse
import sys
import time
from statistics import median

import nbclient
import nbformat
import torch

from cnnlesson.data import Batches, shapes, split, take
from cnnlesson.models import resnet18
from cnnlesson.runtime.device import describe
from cnnlesson.runtime.display import count, output_area
from cnnlesson.training import train
from cnnlesson.widgets import live_board


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True, type=int, help="training and validation images")
    parser.add_argument("--epochs", required=True, type=int, help="per run")
    parser.add_argument("--repeats", type=int, default=3, help="runs with and without the board (3)")
    options = parser.parse_args()
    if output_area() is None:
        cell = nbformat.v4.new_code_cell(f"%run {' '.join(map(repr, sys.argv))}")
        nbclient.NotebookClient(nbformat.v4.new_notebook(cells=[cell]), timeout=None).execute()
        for output in cell.outputs:
            if output["output_type"] == "error":
                sys.exit(f"{output['ename']}: {output['evalue']}")
        print("".join(output["text"] for output in cell.outputs if output["output_type"] == "stream"))
        return
    train_set, val_set = split(take(shapes(seed=0).train, options.images, seed=0), (0.8, 0.2), seed=0)
    seconds_of(train_set, val_set, 1, with_board=True)  # warm-up
    seconds = {True: [], False: []}
    for repeat in range(options.repeats):
        for with_board in (True, False) if repeat % 2 else (False, True):
            seconds[with_board].append(seconds_of(train_set, val_set, options.epochs, with_board))
    for with_board, times in seconds.items():
        each = ", ".join(f"{time:.2f}" for time in times)
        print(f"{'with' if with_board else 'without'} the board: {each} s for {count(options.epochs, 'epoch')}")
    device = describe(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    print(f"ratio of the medians: {median(seconds[True]) / median(seconds[False]):.4f}; resnet18 on {device}")


def seconds_of(train_set, val_set, epochs: int, with_board: bool) -> float:
    torch.manual_seed(0)
    train_batches = Batches(train_set, batch_size=32, image_size=64, seed=0)
    val_batches = Batches(val_set, batch_size=min(100, len(val_set)), image_size=64)
    model = resnet18(10).to(train_batches.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    start = time.perf_counter()
    running = train(model, train_batches, val_batches, optimizer, epochs)
    for _ in live_board(running, num_classes=10) if with_board else running:
        pass
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
