import sys

import pytest

from cnnlesson.runtime.memory import reuse_freed_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has this setting")
def test_glibc_accepts_the_setting():
    assert reuse_freed_memory()


def test_other_systems_are_not_changed(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not reuse_freed_memory()
