"""A server for this machine alone, of Python's standard library: the board, its data and the pages of runs."""

from __future__ import annotations

import json
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote, urlsplit

from experiments.report.board.runs import describe_run, run_folders
from experiments.report.run.loading import RunRecord
from experiments.report.run.page import run_page
from rlkd_env.errors import UsageError

HOST = "127.0.0.1"
_OWN_NAMES = (HOST, "localhost")
_REPORT = "/report/"


class _Handler(BaseHTTPRequestHandler):
    """Answers for the runs of a folder; nothing is written, and no other file is read."""

    def __init__(self, root: Path, *arguments: object) -> None:
        self._root = root
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer a request."""
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in _OWN_NAMES:  # a page of another site that has made its name this machine's
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"this board is for this machine alone")
            return
        path = unquote(urlsplit(self.path).path)
        if path == "/":
            page = files("experiments.report.board").joinpath("board.html").read_bytes()
            self._answer(HTTPStatus.OK, "text/html", page)
        elif path == "/runs.json":
            told = [describe_run(name, folder) for name, folder in run_folders(self._root).items()]
            self._answer(HTTPStatus.OK, "application/json", json.dumps(told).encode())
        elif path.startswith(_REPORT) and (folder := run_folders(self._root).get(path.removeprefix(_REPORT))):
            self._answer_report(folder)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such run")

    def _answer_report(self, folder: Path) -> None:
        try:
            html = run_page(RunRecord.read(folder)).html()
        except UsageError as error:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", str(error).encode())
            return
        self._answer(HTTPStatus.OK, "text/html", html.encode(errors="backslashreplace"))

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Print no line for every request."""


def create_server(root: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of the board on a port of this machine; 0 takes a free one.

    Raises:
        UsageError: if the port is taken.
    """
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Handler, root))
    except OSError as error:
        raise UsageError(f"the port {port} cannot be used ({error.strerror}): take another --port, or 0") from None
