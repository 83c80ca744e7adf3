"""A file that cannot be written: the error says why, and what to do about that cause."""

import errno
import os
from pathlib import Path

import pytest
import torch
from small_run import GRID, run

from cnnlesson.data import tiny_imagenet
from cnnlesson.runtime.checkpoint import Checkpoint
from cnnlesson.search import GridSearch

PERMISSIONS = "you may not write there: change the permissions of the file and its folder, or"
SPACE = "free some space on that disk, or"
FOLDER = "check that its folder still exists, or"
CAUSES = {
    errno.EACCES: PERMISSIONS,
    errno.EPERM: PERMISSIONS,
    errno.EROFS: PERMISSIONS,
    errno.ENOSPC: SPACE,
    errno.EDQUOT: SPACE,
    errno.EFBIG: SPACE,
    errno.EIO: FOLDER,
}
each_cause = pytest.mark.parametrize("cause", CAUSES, ids=errno.errorcode.get)


def write_checkpoint(folder: Path) -> None:
    model = torch.nn.Linear(2, 2)
    Checkpoint(folder / "model.pt", model, torch.optim.SGD(model.parameters(), lr=0.1), None, []).save([])


def write_journal(folder: Path) -> None:
    GridSearch(run, GRID, folder / "grid.journal").run()


@pytest.fixture
def refuse(monkeypatch):
    """refuse(cause) lets every later attempt to open a file for writing fail."""
    open_path = Path.open

    def start(cause: int) -> None:
        def refuse_to_write(path, mode="r", *arguments, **options):
            if set(mode) & set("wax+"):
                raise OSError(cause, os.strerror(cause), str(path))
            return open_path(path, mode, *arguments, **options)

        monkeypatch.setattr(Path, "open", refuse_to_write)

    return start


def assert_advice(message: str, cause: int) -> None:
    assert [advice for advice in (PERMISSIONS, SPACE, FOLDER) if advice in message] == [CAUSES[cause]]
    assert os.strerror(cause) in message
    assert "\n" not in message


@each_cause
@pytest.mark.parametrize("write", [write_checkpoint, write_journal])
def test_an_error_has_the_advice_for_its_cause(write, cause, tmp_path, refuse):
    refuse(cause)
    with pytest.raises(OSError) as caught:
        write(tmp_path)
    assert_advice(str(caught.value), cause)
    assert list(tmp_path.iterdir()) == []


@each_cause
def test_a_cache_that_cannot_be_written_has_the_advice_for_its_cause(cause, tmp_path, make_archive, refuse, capsys):
    archive = make_archive()
    refuse(cause)
    assert len(tiny_imagenet(tmp_path / "data", archive=archive).train)
    assert_advice(capsys.readouterr().out.strip(), cause)
