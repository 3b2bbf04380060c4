"""Servers on loopback: a folder over HTTP, and as much of the Hugging Face hub as a download needs."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a log."""

    def log_message(self, *_args: Any) -> None:
        """Say nothing."""


class Hub(Quiet):
    """Repositories ``org/<name>`` are the folders below ``root``; each has the one version 0.1.0."""

    def __init__(self, *args: Any, root: Path, **kwargs: Any) -> None:
        self.root = root
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        """Answer with a body."""
        self.answer(body=True)

    def do_HEAD(self) -> None:
        """Answer without one."""
        self.answer(body=False)

    def answer(self, body: bool) -> None:
        """Find out what is asked for, and send it."""
        path = self.path.partition("?")[0]
        status, content, header = self.api(path) if path.startswith("/api/models/") else self.file(path)
        self.send_response(status)
        for key, value in {**header, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def api(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Revision, file tree and tags of a repository."""
        _, name, *what = path.removeprefix("/api/models/").split("/")
        folder = self.root / name
        files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
        if not files:
            return 404, b"{}", {"X-Error-Code": "RepoNotFound"}
        names = [p.relative_to(folder).as_posix() for p in files]
        answer: Any = {"_id": "0", "id": f"org/{name}", "sha": _COMMIT, "private": False, "downloads": 0, "likes": 0}
        answer.update(modelId=f"org/{name}", tags=[], siblings=[{"rfilename": n} for n in names])
        if what[:1] == ["tree"]:
            oids = [hashlib.sha1(p.read_bytes()).hexdigest() for p in files]
            sizes = [p.stat().st_size for p in files]
            answer = [
                {"type": "file", "oid": o, "size": s, "path": n} for o, s, n in zip(oids, sizes, names, strict=True)
            ]
        elif what[:1] == ["refs"]:
            tag = {"name": "0.1.0", "ref": "refs/tags/0.1.0", "targetCommit": _COMMIT}
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": _COMMIT}
            answer = {"branches": [main], "converts": [], "tags": [tag]}
        return 200, json.dumps(answer).encode(), {"Content-Type": "application/json"}

    def file(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Content of ``/org/<name>/resolve/<revision>/<file>``."""
        where, _, rest = path.partition("/resolve/")
        file = self.root / where.split("/")[2] / rest.partition("/")[2]
        if not file.is_file():
            return 404, b"", {"X-Error-Code": "EntryNotFound"}
        content = file.read_bytes()
        return 200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": _COMMIT}


@contextlib.contextmanager
def served(root: Path, hub: bool = False) -> Iterator[str]:
    """Serve a folder on a free port of 127.0.0.1 while the block runs; gives the address."""
    handler = functools.partial(Hub, root=root) if hub else functools.partial(Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
