"""A search on a Ray cluster: Ray places the trials, and only this process writes the journal.

Ray shares the images through the object store of each machine, and runs a trial again on another machine if its own is
lost. A trial then continues from its checkpoint if the machines share that folder, and from its start otherwise.
"""

import os
import socket
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from cnnlesson.data import ImageSet
from cnnlesson.runtime.checkpoint import CheckpointError
from cnnlesson.runtime.display import one_line
from cnnlesson.search.trial import Outcomes, TrialError, epochs_of
from cnnlesson.training import Epoch

try:
    import ray
except ModuleNotFoundError as error:
    raise ValueError("Ray is not installed: pip install ray, or leave ray out") from error


def run_on_ray(
    run: Callable, points: Iterator[dict], checkpoint: Callable[[dict], Path], address: str, gpus_per_trial: float
) -> Outcomes:
    """Run trials on the cluster at `address`, as many at a time as it has room for.

    Args:
        run: as `cnnlesson.search.GridSearch` takes it.
        points: each is claimed when it is asked for.
        checkpoint: returns the path of a point's checkpoint.

    Raises:
        ConnectionError: there is no cluster at the address.
    """
    connected_here = not ray.is_initialized()
    if connected_here:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            if port.isdecimal():  # Ray itself would wait for minutes
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address, log_to_driver=False, logging_level="error")
        except Exception as error:
            raise ConnectionError(
                f"there is no Ray cluster at {address} ({one_line(error)}): start one with `ray start --head`, or "
                "leave ray out"
            ) from error
    # Ray shares the memory of NumPy arrays among the processes of a machine, and copies tensors.
    ray.util.register_serializer(ImageSet, serializer=_to_arrays, deserializer=_to_tensors)
    shared_run = ray.put(run)
    resources = ray.cluster_resources()
    gpus = gpus_per_trial if resources.get("GPU") else 0
    room = int(resources["GPU"] / gpus if gpus else resources.get("CPU", 1))
    running = {}  # points, by the stream of their epochs
    try:
        while True:
            # One trial more than there is room for: Ray places it while this process does something else.
            while len(running) <= room and (point := next(points, None)):
                path = str(checkpoint(point).absolute())
                running[_trial.options(num_gpus=gpus).remote(shared_run, point, path)] = point
            if not running:
                return
            (stream,), _ = ray.wait(list(running), num_returns=1)
            outcome = _next_epoch(stream)
            point = running[stream] if isinstance(outcome, Epoch) else running.pop(stream)
            yield point, outcome
    finally:
        for stream in running:
            ray.cancel(stream, force=True)
        if connected_here:
            ray.shutdown()


def _next_epoch(stream: Iterator) -> Epoch | TrialError | None:
    try:
        return ray.get(next(stream))
    except StopIteration:
        return None
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, CheckpointError):
            raise error.cause from error
        return TrialError(str(error.cause))
    except ray.exceptions.RayError as error:
        return TrialError(one_line(error))


@ray.remote(max_retries=-1, num_returns="streaming")
def _trial(run: Callable, point: dict, checkpoint: str) -> Iterator[Epoch]:
    """Runs on a machine of the cluster."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    yield from epochs_of(run, point, checkpoint)


def _to_arrays(images: ImageSet) -> tuple:
    return images.images.numpy(), images.labels.numpy(), images.classes


def _to_tensors(content: tuple) -> ImageSet:
    images, labels, classes = content
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes into the images
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), classes)
