"""The first use of a data set: time and memory up to the first training step, without and with the cache.

    python benchmarks/first_use.py --archive data/tiny-imagenet-200.zip

Each line is measured in a separate process. Memory is the peak resident set size, which includes the pages of the
memory-mapped cache.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--measure":
        measure(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archive", required=True, help="a zip file with TinyImageNet's layout")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("no cache yet", "from the cache"):
                command = [sys.executable, __file__, "--measure", options.archive, folder]
                result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                steps = ", ".join(f"{step} {value}" for step, value in json.loads(result.stdout).items())
                print(f"{name}: {steps}")


def measure(archive: str, cache: str) -> None:
    """Print one line of JSON with the time of each step; runs in a fresh process."""
    found = {}
    start = time.perf_counter()

    def note(step: str) -> None:
        nonlocal start
        found[step] = f"{time.perf_counter() - start:.2f} s"
        start = time.perf_counter()

    import torch

    note("import torch")
    import cnnlesson.models

    note("import cnnlesson.models")
    from cnnlesson.data import Batches, split, tiny_imagenet

    note("import cnnlesson.data")
    data = tiny_imagenet(cache, archive)
    note("tiny_imagenet()")
    train_set, val_set = split(data.train, (0.9, 0.1), seed=0)
    note("split()")
    next(iter(Batches(train_set, min(64, len(train_set)), image_size=64, seed=0, augment=True, device="cpu")))
    next(iter(Batches(val_set, min(64, len(val_set)), image_size=64, device="cpu")))
    note("first batches")
    model = cnnlesson.models.resnet18(len(data.train.classes))
    model(torch.zeros(2, 3, 64, 64)).sum().backward()
    note("first step of resnet18")
    found["memory"] = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"  # ru_maxrss is in KB
    print(json.dumps(found))


if __name__ == "__main__":
    main()
