"""A search on a Ray cluster: Ray places the trials, this process alone writes the journal.

Ray shares the images through the object store of each machine, and runs a trial again on another machine if its own is
lost. A trial then continues from its checkpoint if the machines share that folder, and from its start otherwise.
"""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from cnnlesson.data import ImageSet
from cnnlesson.runtime.checkpoint import CheckpointError
from cnnlesson.search.progress import Progress
from cnnlesson.search.trial import epochs_of
from cnnlesson.training import Epoch

if TYPE_CHECKING:
    from cnnlesson.search.grid import Attempt, GridSearch

try:
    import ray
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("ray is not installed: pip install 'cnnlesson[ray]'", name="ray") from error


def run_on_ray(
    search: "GridSearch", progress: Progress, retry_failed: bool, address: str, gpus_per_trial: float
) -> None:
    """Run the trials of a `GridSearch` on the cluster at `address`, as many at a time as it has room for.

    Raises:
        ConnectionError: there is no cluster at the address.
    """
    from cnnlesson.search.grid import Attempt

    started_here = not ray.is_initialized()
    if started_here:
        _connect(address)
    ray.util.register_serializer(ImageSet, serializer=_as_arrays, deserializer=_as_tensors)
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    task = _trial.options(num_cpus=1, num_gpus=gpus_per_trial if has_gpus else 0)
    run = ray.put(search.trial_run)  # once for all trials, so each machine fetches the images once
    claims = search.claims(retry_failed)
    running = {}  # attempts, by the stream of their epochs
    try:
        while True:
            # Two more trials than there is room for: the next one is placed without waiting for this process.
            while len(running) < _room(gpus_per_trial if has_gpus else 0) + 2 and (point := next(claims, None)):
                stream = task.remote(run, point, str(search.checkpoint(point).absolute()))
                running[stream] = Attempt(search, point, progress)
            if not running:
                return
            (stream,), _ = ray.wait(list(running), num_returns=1)
            if _hear(stream, running[stream]):
                del running[stream]
    finally:
        for stream in running:
            ray.cancel(stream, force=True)
        if started_here:
            ray.shutdown()


def _connect(address: str) -> None:
    try:
        ray.init(None if address == "local" else address, log_to_driver=False, logging_level="error")
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ConnectionError(
            f"there is no Ray cluster at {address} ({reason}): start one with `ray start --head`, or leave ray out"
        ) from error


def _room(gpus_per_trial: float) -> int:
    """How many trials run at a time."""
    resources = ray.cluster_resources()
    room = resources.get("GPU", 0) / gpus_per_trial if gpus_per_trial else resources.get("CPU", 1)
    return max(1, int(room))


def _hear(stream: Iterator, attempt: "Attempt") -> bool:
    """Take the next epoch of a trial; True if the trial has ended instead."""
    try:
        attempt.add(ray.get(next(stream)))
        return False
    except StopIteration:
        attempt.end()
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, CheckpointError):
            raise error.cause from error
        attempt.fail(str(error.cause))
    except ray.exceptions.RayError as error:
        attempt.fail(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
    return True


@ray.remote(max_retries=-1, num_returns="streaming")
def _trial(run: Callable, point: dict, checkpoint: str) -> Iterator[Epoch]:
    """Runs on a machine of the cluster."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    yield from epochs_of(run, point, checkpoint)


def _as_arrays(images: ImageSet) -> tuple:
    """Ray shares the memory of NumPy arrays between the processes of a machine, and copies tensors."""
    return images.images.numpy(), images.labels.numpy(), images.classes


def _as_tensors(content: tuple) -> ImageSet:
    images, labels, classes = content
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), classes)
