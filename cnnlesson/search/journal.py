"""Journals: files of JSON lines that keep what the trials of a search did.

A process writes one journal and no other; any number of processes read it. Lines are only added, each flushed and
synced, so a crash costs at most the line that was being written:

    {"by": ..., "launch": {"host": ..., "pid": ..., ...}}  a process starts to write
    {"by": ..., "start": POINT}                            a trial starts, or starts again
    {"by": ..., "epoch": {...}, "point": POINT}            one of its epochs
    {"by": ..., "end": "completed", "point": POINT}        it has ended; or "withdrawn", if another process was first
    {"by": ..., "alive": true}                             nothing else was written for a while
    {"by": ..., "leave": true}                             the process stops writing

"by" is the launch that wrote the line. Every line also has its "time", in seconds since 1970.
"""

import glob
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

from cnnlesson.runtime.atomic import advice, make_folder

FIRST_BYTES = b'{"by": "'
HEARTBEAT_SECONDS = 20  # a process writes at least this often
GRACE_SECONDS = 120  # a process on another machine that was silent for this long is dead

_own_launches = set()  # of this process, whose pid is alive in any case


class Journal:
    """The journal that this process writes."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()  # the heartbeat writes from a thread of its own

    @contextmanager
    def launch(self, content: Mapping) -> Iterator[None]:
        """Own the journal during the block.

        Raises:
            OSError: another process owns it, or it cannot be written.
        """
        make_folder(self.path.parent)
        self.by = uuid.uuid4().hex[:8]
        self._refuse_if_owned()
        process = {"host": platform.node(), "pid": os.getpid(), "started": psutil.Process().create_time()}
        ended = threading.Event()
        heartbeat = threading.Thread(target=self._beat, args=(ended,), daemon=True)
        _own_launches.add(self.by)
        try:
            # If a crash has cut the last line, end it: reading skips it.
            is_cut = self.path.exists() and not (self.path.read_bytes() or b"\n").endswith(b"\n")
            self._append({"launch": {**process, **content}}, before="\n" * is_cut)
            # Two processes may come here at the same moment: the first launch in the file owns the journal.
            self._refuse_if_owned()
            heartbeat.start()
            yield
        finally:
            ended.set()
            if heartbeat.is_alive():
                heartbeat.join()
            with suppress(OSError):
                self._append({"leave": True})
            _own_launches.discard(self.by)

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
            size = self.path.stat().st_size if self.path.exists() else 0
            if size != self._size and self._is_lost():
                raise OSError(
                    f"the journal {self.path} was removed, or another process has taken it over since this one was "
                    f"silent for over {GRACE_SECONDS} s: wait until that one ends, then run again"
                )
            self._append(record)

    def _is_lost(self) -> bool:
        """Whether the launch of this process is gone, or another process writes; a refused one only launches."""
        records = read(self.path)
        own = [place for place, record in enumerate(records) if record["by"] == self.by]
        others = [record for record in records[own[0] :] if record["by"] != self.by] if own else []
        return not own or any(not {"launch", "leave"} & record.keys() for record in others)

    def _append(self, record: Mapping, before: str = "") -> None:
        line = json.dumps({"by": self.by, "time": round(time.time(), 6), **record})
        try:
            # Unbuffered, in append mode: a line is one write at the end of the file, even if another process writes.
            with self.path.open("ab", buffering=0) as file:
                file.write(f"{before}{line}\n".encode())
                os.fsync(file.fileno())
                self._size = file.tell()
        except OSError as error:
            raise OSError(
                f"the journal {self.path} cannot be written ({error.strerror}): {advice(error)}, or name another "
                "file; what is finished is kept"
            ) from error
        self._written = time.monotonic()

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(1):
            if time.monotonic() - self._written > HEARTBEAT_SECONDS:
                with suppress(OSError):  # the next line that matters reports it
                    self.write({"alive": True})


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
        start = file.read(100)
        first_line = start.lstrip(b"\0\r\n").split(b"\n")[0].rstrip(b"\0")
        if not FIRST_BYTES.startswith(first_line[: len(FIRST_BYTES)]):
            is_old = first_line.startswith(b'{"op_code"')
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


def journals_of(storage: Path) -> list[tuple[list[dict], str | None]]:
    """The records of each journal of a search, such as alexnet.journal and alexnet.3-of-8.journal, and who owns it."""
    parts = storage.parent.glob(f"{glob.escape(storage.stem)}.*-of-*{glob.escape(storage.suffix)}")
    journals = map(read, [storage, *sorted(parts)])
    return [(records, (owner_of(records) or {}).get("by")) for records in journals]


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
