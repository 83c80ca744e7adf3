"""Where the time of an epoch goes, and what speeds up small batches: other optimizers, and a compiled network.

    python benchmarks/step.py --archive data/tiny-imagenet-200.zip

The profiled code is `cnnlesson.training.train_one_epoch` itself. Rates are medians over epochs that take turns.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from statistics import median

from throughput import IMAGES, NETWORKS, prepare
from torch.profiler import ProfilerActivity, profile, record_function

from cnnlesson.data import ImageSet, take, tiny_imagenet
from cnnlesson.runtime.device import describe, find_device
from cnnlesson.runtime.memory import reuse_freed_memory
from cnnlesson.training import train_one_epoch

OPTIMIZERS = {"for loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
KINDS = {  # of operators, by parts of their names; the first match counts
    "convolutions": ("convolution", "conv2d", "cudnn"),
    "matrix products": ("addmm", "aten::mm", "gemm"),
    "casts and copies": ("copy_", "_to_copy"),
    "optimizer": ("sgd", "SGD"),
    "batch norm": ("batch_norm",),
    "pooling": ("pool",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archive", required=True, help="a zip file with TinyImageNet's layout")
    parser.add_argument("--batch-size", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    reuse_freed_memory()
    device = find_device(None)
    print(describe(device))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/compiled"  # otherwise torch reuses earlier runs' results
        data = tiny_imagenet(folder, options.archive)
        for network in NETWORKS:
            train_set = take(data.train, IMAGES[device.type][network], seed=0)
            for batch_size in options.batch_size:
                print(f"\n{network}, batch size {batch_size}")
                where_the_time_goes(network, train_set, batch_size)
                what_helps(network, train_set, batch_size, options.repeats)


def where_the_time_goes(network: str, train_set: ImageSet, batch_size: int) -> None:
    """Print the share of an epoch that each kind of operator takes, and the share of the batches."""
    model, batches, optimizer = prepare(network, train_set, batch_size, fused=True)
    train_one_epoch(model, batches, optimizer)  # warm-up: the first epoch also allocates memory

    def watched() -> Iterator:
        them = iter(batches)
        while True:
            with record_function("batches"):
                batch = next(them, None)
            if batch is None:
                return
            yield batch

    on_gpu = batches.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, acc_events=True) as profiled:
        train_one_epoch(model, watched(), optimizer)
    events = profiled.key_averages()
    (making_batches,) = (event for event in events if event.key == "batches" and event.cpu_time_total)
    times = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for event in events:
        kind = next((kind for kind, parts in KINDS.items() if any(part in event.key for part in parts)), "the rest")
        times[kind] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    total = sum(times.values())
    shares = ", ".join(f"{kind} {share / total:.0%}" for kind, share in times.items())
    print(f"  {total / len(batches) / 1e3:.1f} ms per step: {shares}")
    batches_time = making_batches.device_time_total if on_gpu else making_batches.cpu_time_total
    print(f"  batches: {batches_time / total:.1%} of it (their operators are included above)")


def what_helps(network: str, train_set: ImageSet, batch_size: int, repeats: int) -> None:
    """Print images per second with each kind of optimizer, and with a compiled network."""
    ways = {name: prepare(network, train_set, batch_size, **kind) for name, kind in OPTIMIZERS.items()}
    ways["compiled"] = prepare(network, train_set, batch_size, fused=True)
    ways["compiled"][0].compile()
    for name, (model, batches, optimizer) in ways.items():
        start = time.perf_counter()
        train_one_epoch(model, [next(iter(batches))], optimizer)
        if name == "compiled":
            print(f"  first step of a compiled network: {time.perf_counter() - start:.1f} s")
    rates = {name: [] for name in ways}
    for _ in range(repeats):
        for name, arguments in ways.items():
            start = time.perf_counter()
            score = train_one_epoch(*arguments)
            rates[name].append(score.num_images / (time.perf_counter() - start))
    print("  images/s: " + ", ".join(f"{name} {median(some):,.0f}" for name, some in rates.items()))


if __name__ == "__main__":
    main()
