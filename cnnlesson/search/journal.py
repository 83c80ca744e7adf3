"""Journals: files of JSON lines that keep what the trials of a search did.

A process writes one journal and no other; any number of processes read it. Lines are only added, each flushed and
synced, so a crash costs at most the line that was being written:

    {"journal": "cnnlesson", "version": 1, ...}      the first line
    {"launch": {"host": ..., "pid": ..., ...}, ...}  a process starts to write
    {"start": POINT, ...}                            a trial starts, or starts again
    {"epoch": {...}, "point": POINT, ...}            one of its epochs
    {"end": "completed", "point": POINT, ...}        it has ended; or "withdrawn", if another process was first
    {"alive": true, ...}                             nothing else was written for a while
    {"leave": true, ...}                             the process stops writing

Every line also has "by", the launch that wrote it, and "time", in seconds since 1970.
"""

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from cnnlesson.runtime.atomic import make_folder

HEADER = {"journal": "cnnlesson", "version": 1}
FIRST_BYTES = json.dumps(HEADER)[:-1].encode()
HEARTBEAT_SECONDS = 20  # a process writes at least this often
GRACE_SECONDS = 120  # a process on another machine that was silent for this long is dead

_own_launches = set()  # of this process, whose pid is alive in any case


class Journal:
    """The journal that this process writes."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()  # the heartbeat writes from a thread of its own

    @contextmanager
    def launch(self, content: Mapping) -> Iterator[bool]:
        """Own the journal during the block; yields whether a crash has cut its last line in the middle.

        Raises:
            OSError: another process owns it, or it cannot be written.
        """
        make_folder(self.path.parent)
        self.by = uuid.uuid4().hex[:8]
        self._refuse_if_owned()
        process = {"host": platform.node(), "pid": os.getpid(), "started": psutil.Process().create_time()}
        was_cut = self._open()
        ended = threading.Event()
        heartbeat = threading.Thread(target=self._beat, args=(ended,), daemon=True)
        _own_launches.add(self.by)
        try:
            self._append({"launch": {**process, **content}})
            # Two processes may come here at the same moment: the first launch in the file owns the journal.
            self._refuse_if_owned()
            heartbeat.start()
            yield was_cut
        finally:
            ended.set()
            if heartbeat.is_alive():
                heartbeat.join()
            with suppress(OSError):
                self._append({"leave": True})
            _own_launches.discard(self.by)
            self._file.close()

    def _open(self) -> bool:
        with self._in_one_line():
            # Unbuffered, in append mode: a line is one write at the end of the file, even if another process writes.
            self._file = self.path.open("ab", buffering=0)
            content = self.path.read_bytes()
            if not content.startswith(FIRST_BYTES):
                if content:  # a part of the header; never cut a new file, another process may be writing it
                    self._file.truncate(0)
                self._append(HEADER)
                return False
            was_cut = not content.endswith(b"\n")
            if was_cut:
                self._file.write(b"\n")  # reading skips the rest of that line
            return was_cut

    def _refuse_if_owned(self) -> None:
        records = read(self.path)
        owner = owner_of(records)
        if owner is not None and owner["by"] != self.by:
            launch, seconds = owner["launch"], round(time.time() - _last_heard(records, owner["by"]))
            raise OSError(
                f"another process is running the search in {self.path}: wait until it ends, or stop it (pid "
                f"{launch['pid']} on {launch['host']}, last heard of {seconds} s ago; it may be another notebook). A "
                f"process that was lost with its machine blocks the journal for {GRACE_SECONDS} s"
            )

    def write(self, record: Mapping) -> None:
        """Add a line, and return when it is on disk.

        Raises:
            OSError: the disk is full, the file was removed, or another process has taken the journal over.
        """
        with self._lock:
            status = os.fstat(self._file.fileno())
            if status.st_nlink == 0:
                raise OSError(f"the journal {self.path} was removed during the search: run again to start a new one")
            if status.st_size != self._size and self._is_taken_over():
                raise OSError(
                    f"another process has taken over the journal {self.path}, since this one was silent for over "
                    f"{GRACE_SECONDS} s: wait until it ends, then run again"
                )
            self._append(record)

    def _is_taken_over(self) -> bool:
        """Whether another process writes here; one that was refused has written only its launch."""
        records = read(self.path)
        own = [place for place, record in enumerate(records) if record["by"] == self.by]
        others = [record for record in records[own[0] :] if record["by"] != self.by] if own else []
        return not own or any(not {"journal", "launch", "leave"} & record.keys() for record in others)

    def _append(self, record: Mapping) -> None:
        line = json.dumps({**record, "by": self.by, "time": round(time.time(), 6)})
        with self._in_one_line():
            self._file.write(f"{line}\n".encode())
            os.fsync(self._file.fileno())
        self._size = self._file.tell()
        self._written = time.monotonic()

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(1):
            if time.monotonic() - self._written > HEARTBEAT_SECONDS:
                with suppress(OSError):  # the next line that matters reports it
                    self.write({"alive": True})

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno is None:
                raise  # in one line already
            raise OSError(
                f"the journal {self.path} cannot be written ({error.strerror}): free some space on that disk, or name "
                "another file; what is finished is kept"
            ) from error


def read(path: Path) -> list[dict]:
    """The records of a journal; none if there is no file. Lines that a crash has cut are skipped.

    Raises:
        ValueError: it is not a journal of this package.
    """
    if not path.exists():
        return []
    if not path.is_file():
        raise ValueError(f"{path} is not a file: name a journal, such as results/alexnet.journal")
    with path.open("rb") as file:
        start = file.read(len(FIRST_BYTES))
        if not FIRST_BYTES.startswith(start.rstrip(b"\0")):
            is_old = start.startswith(b'{"op_code"')
            kind = "a journal of cnnlesson 0.1, which this version cannot read" if is_old else "not a journal of trials"
            raise ValueError(f"{path} is {kind}: name another file")
        lines = (start + file.read()).split(b"\n")
    records = []
    for line in lines:
        with suppress(ValueError):
            record = json.loads(line.strip(b"\0\r"))
            if isinstance(record, dict) and {"by", "time"} <= record.keys():
                records.append(record)
    return records


def owner_of(records: Sequence[dict]) -> dict | None:
    """The launch of the process that owns the journal now: the first that has not left and is alive."""
    left = {record["by"] for record in records if "leave" in record}
    launches = (record for record in records if "launch" in record and record["by"] not in left)
    return next((launch for launch in launches if _is_alive(launch, records)), None)


def _is_alive(record: dict, records: Sequence[dict]) -> bool:
    launch = record["launch"]
    if launch["host"] != platform.node():
        return time.time() - _last_heard(records, record["by"]) < GRACE_SECONDS
    if launch["pid"] == os.getpid():
        return record["by"] in _own_launches
    try:
        process = psutil.Process(launch["pid"])
        # A process that started at another time only has the same pid.
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - launch["started"]) < 10
    except psutil.NoSuchProcess:
        return False


def _last_heard(records: Sequence[dict], by: str) -> float:
    return max(record["time"] for record in records if record["by"] == by)
