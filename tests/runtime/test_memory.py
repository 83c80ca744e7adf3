import sys

import pytest

from cnnlesson.runtime.memory import reuse_freed_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_glibc_takes_the_setting():
    assert reuse_freed_memory()


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not reuse_freed_memory()
