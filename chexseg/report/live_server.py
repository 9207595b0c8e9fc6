"""Serve a directory on loopback to the user who has its secret address."""

from __future__ import annotations

import functools
import http.server
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chexseg.errors import UserError, reason

#: Not 127.0.0.1: by a cookie with the token a browser shows Ray's dashboard there, and it sends the
#: cookie to all ports of an address, also if another user has taken the port of a command that
#: has ended. macOS has no other address of loopback.
HOST = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"


@contextmanager
def serving(directory: Path, refresh: float, port: int = 0) -> Iterator[str]:
    """Serve the files of a directory by HTTP in a thread; yield the address of its index.html.

    Other users of the machine can reach loopback too, so the address has a secret; without it the
    answer is 404. The same holds for a page of another site that got its name resolved to loopback:
    only requests to this host by its number are answered. refresh: seconds after which a browser
    loads the page again. port: 0 takes a free one. Raises `UserError` if it is taken.
    """
    secret = secrets.token_urlsafe(16)
    handler = functools.partial(_Handler, secret, refresh, directory=str(directory))
    try:
        server = http.server.ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        raise UserError(
            f"--port {port}: can't be used ({reason(error)}); expected: a free port"
        ) from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/{secret}/index.html"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Answers GET and HEAD below the secret, and lists no directory."""

    #: Seconds without a byte from or to a client, after which its connection is closed. Anybody on
    #: the machine can open connections, and each has a thread.
    timeout = 60

    def __init__(self, secret: str, refresh: float, *arguments: Any, **options: Any) -> None:
        self.secret, self.refresh = secret, refresh
        super().__init__(*arguments, **options)

    def send_head(self) -> Any:
        address = f"{HOST}:{self.connection.getsockname()[1]}"
        path = urlsplit(self.path).path
        given = path.removeprefix("/").partition("/")[0]
        allowed = secrets.compare_digest(given.encode(), self.secret.encode())
        if not allowed or self.headers.get("Host") != address:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        self.path = path.removeprefix(f"/{self.secret}") or "/"
        return super().send_head()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")  # which would tell the secret
        if self.path.endswith(".html"):
            self.send_header("Refresh", f"{self.refresh:g}")
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing for each request."""
