"""Test the server of a page on loopback: whom it answers, and what."""

from __future__ import annotations

import http.client
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from chexseg.errors import UserError
from chexseg.report import live_server


@pytest.fixture
def page(tmp_path) -> Path:
    folder = tmp_path / "page"
    (folder / "tables").mkdir(parents=True)
    (folder / "index.html").write_text("the page")
    (folder / "tables" / "a.csv").write_text("a,b")
    (tmp_path / "private").write_text("not yours")
    return folder


def ask(address: str, path: str, host: str | None = None) -> tuple[int, str, dict[str, str]]:
    """Return status, body and headers of a request for a path of a server."""
    place = urlsplit(address).netloc
    connection = http.client.HTTPConnection(place, timeout=30)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host or place)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body, dict(answer.getheaders())


@pytest.mark.heavy  # a server
def test_the_address_shows_the_page_and_loads_it_again(page):
    with live_server.serving(page, refresh=30) as address:
        path = urlsplit(address).path
        status, body, headers = ask(address, path)
        assert (status, body, headers["Refresh"]) == (200, "the page", "30")
        assert headers["Cache-Control"] == "no-store"
        (page / "index.html").write_text("more")
        assert ask(address, path)[1] == "more"
        assert ask(address, path.replace("index.html", "tables/a.csv"))[1] == "a,b"
        port = urlsplit(address).port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((live_server.HOST, port), timeout=5)


@pytest.mark.heavy
def test_nobody_else_is_answered(page):
    with live_server.serving(page, refresh=30) as address:
        path = urlsplit(address).path
        secret = path.split("/")[1]
        for other in ("/", "/index.html", "//index.html", "*", f"/{secret[:-1]}/index.html"):
            assert ask(address, other)[0] == 404, other
        for outside in ("../private", "..%2fprivate", "%2e%2e/private", "tables", "tables/"):
            assert ask(address, f"/{secret}/{outside}")[0] in (301, 404), outside
        assert ask(address, path, host="evil.example")[0] == 404, "a name that leads to loopback"


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="has no other address of loopback")
def test_browsers_send_it_no_cookie_of_the_dashboard(page):
    """Cookies belong to a host, whatever the port (RFC 6265, section 8.5)."""
    with live_server.serving(page, refresh=30) as address:
        assert urlsplit(address).hostname not in ("127.0.0.1", "localhost")


@pytest.mark.heavy
def test_a_port_that_is_taken_is_one_line(page):
    with live_server.serving(page, refresh=30) as address:
        port = urlsplit(address).port
        with (
            pytest.raises(UserError, match=f"--port {port}: can't be used"),
            live_server.serving(page, 30, port),
        ):
            pass


@pytest.mark.heavy
def test_a_connection_that_sends_nothing_is_closed(page, monkeypatch):
    assert 0 < live_server._Handler.timeout <= 60
    monkeypatch.setattr(live_server._Handler, "timeout", 0.05)
    with live_server.serving(page, refresh=30) as address:
        place = urlsplit(address)
        with socket.create_connection((place.hostname, place.port), timeout=30) as idle:
            idle.sendall(b"GET ")
            assert idle.recv(1) == b""
        assert ask(address, place.path)[0] == 200
