"""Downloads from local servers that fail the way real ones do."""

import hashlib
import re
import shutil
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from small_files import jpeg, write_zip

import cnnlesson.data.download as module
from cnnlesson.data import eurosat, named_images, sets, tiny_imagenet
from cnnlesson.data.download import download

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes
SOME = 6 * 2**14  # 98,304 bytes, a multiple of the download's block size
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server:
    """Serves `content`. The attributes below make it fail; `requests` lists the first byte of each request."""

    def __init__(self):
        self.content = CONTENT
        self.bytes_per_request = None  # after which it drops the connection
        self.ignores_ranges = False
        self.hangs = 0  # the number of requests that get no answer
        self.status = None
        self.requests = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/tiny-imagenet-200.zip"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        start = int(re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"]).group(1))
        self.requests.append(start)
        if self.hangs:
            self.hangs -= 1
            time.sleep(1)
            return
        if self.status:
            handler.send_error(self.status)
            return
        if self.ignores_ranges or start == 0:
            start = 0
            handler.send_response(200)
        else:
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.send_header("Content-Length", str(len(self.content) - start))
        handler.end_headers()
        end = None if self.bytes_per_request is None else start + self.bytes_per_request
        handler.wfile.write(self.content[start:end])


@pytest.fixture
def start_server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    monkeypatch.setattr(module, "TIMEOUT", (0.3, 0.3))
    servers = []

    def start() -> Server:
        servers.append(Server())
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture
def server(start_server):
    return start_server()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "tiny-imagenet-200.zip"


def fetch(path, *urls):
    return download(urls, path, size=len(CONTENT), md5=MD5)


def test_download_from_a_good_server(server, path):
    assert fetch(path, server.url).read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_dropped_connection_is_resumed(server, path):
    server.bytes_per_request = SOME
    assert fetch(path, server.url).read_bytes() == CONTENT
    assert server.requests == [0, SOME, 2 * SOME, 3 * SOME, 4 * SOME, 5 * SOME]


def test_a_later_run_resumes_an_earlier_one(server, path):
    path.parent.mkdir()
    path.with_name(path.name + ".part").write_bytes(CONTENT[:123_456])
    assert fetch(path, server.url).read_bytes() == CONTENT
    assert server.requests == [123_456]


def test_a_server_that_hangs_is_asked_again(server, path):
    server.hangs = 2
    assert fetch(path, server.url).read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_sends_the_whole_file(server, path):
    server.ignores_ranges = True
    path.parent.mkdir()
    path.with_name(path.name + ".part").write_bytes(b"?" * 1000)
    assert fetch(path, server.url).read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_and_drops_is_an_error(server, path):
    server.ignores_ranges = True
    server.bytes_per_request = SOME
    with pytest.raises(ConnectionError, match="could not be downloaded"):
        fetch(path, server.url)
    assert len(server.requests) == 1 + module.TRIES
    assert not path.exists()


def test_wrong_bytes_never_get_the_right_name(server, path):
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(
        ConnectionError, match=rf"expected 512,000 bytes with MD5 {MD5}, got 512,000 bytes with MD5 (?!{MD5})"
    ):
        fetch(path, server.url)
    assert list(path.parent.iterdir()) == []


def test_a_web_page_instead_of_the_file_is_an_error_immediately(server, path):
    server.content = b"<html>please log in</html>"
    with pytest.raises(ConnectionError, match="expected 512,000 bytes, got 26"):
        fetch(path, server.url)
    assert len(server.requests) == 1


def test_a_missing_file_is_requested_only_once(server, path):
    server.status = 404
    with pytest.raises(ConnectionError, match="404"):
        fetch(path, server.url)
    assert len(server.requests) == 1


def test_a_server_error_is_retried(server, path):
    server.status = 503
    with pytest.raises(ConnectionError, match="503"):
        fetch(path, server.url)
    assert len(server.requests) == module.TRIES


def test_the_next_mirror_resumes_after_the_first(start_server, path, capsys):
    first, second = start_server(), start_server()
    first.bytes_per_request = SOME
    first.ignores_ranges = True
    assert fetch(path, first.url, second.url).read_bytes() == CONTENT
    assert second.requests == [SOME]
    printed = capsys.readouterr().out
    assert f"{first.url} failed" in printed
    assert f"; trying {second.url}" in printed


def test_the_next_mirror_replaces_wrong_bytes(start_server, path):
    first, second = start_server(), start_server()
    first.content = CONTENT[::-1]
    assert fetch(path, first.url, second.url).read_bytes() == CONTENT


def test_if_no_mirror_answers_the_error_says_what_to_do(server, path):
    closed = "http://127.0.0.1:9/tiny-imagenet-200.zip"
    server.bytes_per_request = SOME
    server.ignores_ranges = True
    with pytest.raises(ConnectionError) as caught:
        fetch(path, server.url, closed)
    message = str(caught.value)
    assert "\n" not in message
    assert server.url in message and closed in message
    assert "refused" in message
    assert "resume after the 98,304 bytes received so far, or download the file from one of these" in message
    assert str(path) in message


def test_too_little_disk_space_is_an_error_before_the_download(server, path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(OSError, match=r"needs 1 MB on the disk of .*, which has 0 MB left"):
        fetch(path, server.url)
    assert server.requests == []


def test_tiny_imagenet_downloads_into_an_empty_folder(server, tmp_path, make_archive, monkeypatch):
    server.content = make_archive().read_bytes()
    source = sys.modules[tiny_imagenet.__module__]
    monkeypatch.setattr(source, "MIRRORS", (server.url,))
    monkeypatch.setattr(source, "SIZE", len(server.content))
    monkeypatch.setattr(source, "MD5", hashlib.md5(server.content).hexdigest())
    root = tmp_path / "data"
    assert len(tiny_imagenet(root).train) == 36
    assert sorted(file.name for file in root.iterdir()) == ["tiny-imagenet-200.pt", "tiny-imagenet-200.zip"]
    tiny_imagenet(root)
    assert server.requests == [0]


def test_eurosat_downloads_into_an_empty_folder_and_is_split(server, tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    names = [f"2750/{name}/{name}_{number}.jpg" for name in ("River", "Forest") for number in range(10)]
    archive = write_zip(tmp_path / "server.zip", {name: jpeg(random) for name in names}, top="")
    server.content = archive.read_bytes()
    monkeypatch.setattr(sets, "EUROSAT_MIRRORS", (server.url,))
    monkeypatch.setattr(sets, "EUROSAT_SIZE", len(server.content))
    monkeypatch.setattr(sets, "EUROSAT_MD5", hashlib.md5(server.content).hexdigest())
    root = tmp_path / "data"
    data = named_images("eurosat", root, seed=0)
    assert data.train.classes == data.test.classes == ("Forest", "River")
    assert data.train.images.shape == (16, 3, 64, 64)
    assert data.train.labels.tolist() == [0] * 8 + [1] * 8
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert not {image.numpy().tobytes() for image in data.train.images} & {
        image.numpy().tobytes() for image in data.test.images
    }
    assert len(eurosat(root).train) == 16
    assert server.requests == [0]
    assert (root / "eurosat/EuroSAT.zip").read_bytes() == server.content
