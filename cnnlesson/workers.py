"""Processes that run trials, several at once; one that dies takes nothing with it but its own unfinished epoch."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

import cloudpickle
import torch

from cnnlesson.forecast import measure
from cnnlesson.runtime.checkpoint import CheckpointError
from cnnlesson.runtime.memory import reuse_freed_memory
from cnnlesson.trial_run import TrialError, epochs_of, one_line


class Worker:
    """A process that runs one trial after the other.

    Args:
        run: as `pack` has packed it.
        number: 0 for the first worker, which takes the first GPU where there are several.
        threads: of the processor.
    """

    def __init__(self, run: bytes, number: int, threads: int):
        self.arguments = (run, number, threads)
        self._begin()

    def _begin(self) -> None:
        self.attempt = None  # at which trial, while it runs one
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_work, args=(theirs, *self.arguments))
        self.process.start()
        theirs.close()  # so that the end of the process ends the connection

    def start(self, attempt, checkpoint: Path) -> None:
        self.attempt = attempt
        self._send(("run", attempt.trial.point, checkpoint))

    def measure(self, point: dict) -> None:
        self._send(("measure", point, None))

    def _send(self, order: tuple) -> None:
        with suppress(ConnectionError):  # it has died: `receive` says so
            self.connection.send(order)

    def receive(self) -> tuple[str, object]:
        """What the worker says next.

        ("epoch", (Epoch, busy share)), ("end", None), ("cost", Cost), ("failed", reason), ("full", what to do about the
        disk), or ("died", how).
        """
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            return "died", signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def restart(self) -> None:
        """Leave what it is doing, and begin anew, with all memory free."""
        self.stop()
        self._begin()


# A server process that has imported torch once and then forks: a new worker is there at once, and, unlike one forked
# from a notebook, it finds no half-copied threads and no GPU already in use. Windows has no fork.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_CONTEXT = multiprocessing.get_context(_METHOD)
if _METHOD == "forkserver":
    _CONTEXT.set_forkserver_preload([__name__, "cnnlesson.data", "cnnlesson.models"])


def pack(run: Callable) -> bytes:
    """`run` with all that it uses, also where it was written in a notebook, to be sent to workers.

    Raises:
        ValueError: something that it uses cannot be sent.
    """
    try:
        return cloudpickle.dumps(run)
    except Exception as error:
        raise ValueError(
            f"run cannot be sent to other processes ({one_line(error)}): call it with workers=1, or let it use "
            "nothing but images, functions and plain values"
        ) from error


def _work(connection: Connection, run: bytes, number: int, threads: int) -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: the launcher decides
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    else:
        torch.set_num_threads(threads)
        reuse_freed_memory()
    run = _unpack(run)
    while True:
        order, point, checkpoint = connection.recv()
        try:
            if order == "measure":
                connection.send(("cost", measure(run, point)))
                continue
            for epoch_and_share in epochs_of(run, point, checkpoint):
                connection.send(("epoch", epoch_and_share))
            connection.send(("end", None))
        except TrialError as error:
            connection.send(("failed", str(error)))
        except CheckpointError as error:
            connection.send(("full", str(error)))


def _unpack(run: bytes) -> Callable:
    try:
        return cloudpickle.loads(run)
    except Exception as error:
        reason = one_line(error)

        def refuse(**point) -> None:
            raise RuntimeError(f"run cannot be taken up in another process ({reason}): call it with workers=1")

        return refuse


def _end_with_launcher() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
