"""Test objects of which the server sends less than it announced: pyarrow calls them whole."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pyarrow import fs

from chexseg.data import remote_path
from chexseg.errors import UserError
from chexseg.store import object_backend, uris

WHOLE = 1000


@pytest.fixture
def place() -> Iterator[uris.Place]:
    """Return a bucket: an object named ``N-B`` has N bytes of value B of the 1,000 it announces."""

    class Server(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._begin(200, WHOLE)

        def do_GET(self) -> None:
            count, byte = map(int, self.path.partition("?")[0].rpartition("/")[2].split("-"))
            self._begin(206, count)
            self.wfile.write(bytes([byte]) * count)

        def _begin(self, code: int, length: int) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(length))
            self.send_header("ETag", '"x"')
            self.send_header("Last-Modified", "Sat, 28 Nov 2026 00:00:00 GMT")
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    host = f"127.0.0.1%3A{server.server_port}"
    yield uris.connect(f"s3://a:b@bucket/top?endpoint_override={host}&scheme=http", "--store")
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("byte", [0, 0x55, 0xAA])
@pytest.mark.parametrize("count", [0, 1, 500, WHOLE - 1])
def test_a_short_answer_is_an_error(place, count, byte):
    with pytest.raises(OSError, match="ends before the 1000 bytes"):
        uris.read_whole(place.files, f"{place.path}/{count}-{byte}")


@pytest.mark.parametrize("byte", [0, 0x55, 0xAA])
def test_a_whole_answer_is_returned_whatever_its_last_byte_is(place, byte):
    content = uris.read_whole(place.files, f"{place.path}/{WHOLE}-{byte}")
    assert content == bytes([byte]) * WHOLE


def test_a_short_answer_is_no_damage_for_which_a_result_is_deleted(place, tmp_path, monkeypatch):
    monkeypatch.setenv("CHEXSEG_CACHE", str(tmp_path))
    monkeypatch.setattr(object_backend, "connect", lambda uri, option: place)
    backend = object_backend.ObjectBackend("s3://bucket/top")
    assert backend.sha256(f"{WHOLE}-1") == hashlib.sha256(b"\1" * WHOLE).hexdigest()
    with pytest.raises(UserError, match="an answer ends before"):
        backend.sha256("500-1")


def test_an_object_of_several_answers_is_read_as_a_whole(tmp_path):
    """Each has another part of it."""
    content = bytes(range(256)) * 10
    (tmp_path / "object").write_bytes(content)
    with fs.LocalFileSystem().open_input_file(str(tmp_path / "object")) as file:
        whole = uris.WholeAnswers(file)
        chunks = list(iter(lambda: whole.read(1000), b""))
    assert b"".join(chunks) == content and [len(chunk) for chunk in chunks] == [1000, 1000, 560]


def test_pyarrow_still_calls_a_short_answer_whole(place):
    """If this fails, `WholeAnswers` has become superfluous."""
    with place.files.open_input_file(f"{place.path}/500-0") as file:
        assert len(file.read()) == WHOLE


def test_a_file_of_a_data_set_is_named(place, monkeypatch):
    monkeypatch.setattr(remote_path, "_connected", lambda uri: place)
    with pytest.raises(OSError, match="ends before") as raised:
        remote_path.RemotePath("s3://bucket/top", "500-0").read_bytes()
    assert raised.value.filename == "s3://bucket/top/500-0"
