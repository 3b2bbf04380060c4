"""The guard before MONAI Label's server, asked as browsers and programs ask; MONAI Label itself is a stand-in here."""

import asyncio
import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest
from fastapi import FastAPI, WebSocket

from tests.conftest import ROOT

OWN = "127.0.0.1:8811"
VIEWER = "https://viewer.example"


def stand_in():
    """An application with one page and one WebSocket."""
    app = FastAPI()

    @app.get("/info/")
    def info() -> str:
        return "models"

    @app.websocket("/socket")
    async def socket(connection: WebSocket) -> None:
        await connection.accept()
        await connection.close()

    return app


@pytest.fixture
def guard(monkeypatch):
    """The guard's file, loaded by its path as the server does, with one viewer's origin allowed."""
    config = ModuleType("monailabel.config")
    config.settings = SimpleNamespace(MONAI_LABEL_CORS_ORIGINS=[f"{VIEWER}/"], MONAI_LABEL_SERVER_PORT=8811)
    application = ModuleType("monailabel.app")
    application.app = stand_in()
    for module in (ModuleType("monailabel"), config, application):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    spec = importlib.util.spec_from_file_location("guard", ROOT / "deploy" / "label" / "guard.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ask(app, kind="http", **headers):
    """Status of the answer (ASGI, without a client between); 101 for a WebSocket that was accepted."""
    scheme, path = ("ws", "/socket") if kind == "websocket" else ("http", "/info/")
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in {"host": OWN, **headers}.items()]
    scope = {"type": kind, "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": scheme, "path": path}
    scope |= {"raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": raw, "method": "GET"}
    scope |= {"extensions": {"websocket.http.response": {}}, "subprotocols": [], "client": None, "server": None}
    sent = []

    async def receive():
        return {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return 101 if sent[0]["type"] == "websocket.accept" else sent[0]["status"]


@pytest.mark.parametrize(("kind", "passed"), [("http", 200), ("websocket", 101)])
def test_own_pages_the_viewer_and_programs_pass(guard, kind, passed):
    for headers in (
        {},  # 3D Slicer, curl
        {"sec_fetch_site": "none"},  # an address typed into a browser
        {"sec_fetch_site": "same-origin"},
        {"origin": f"http://{OWN}", "sec_fetch_site": "same-origin"},
        {"host": "localhost:9000", "origin": "http://localhost:9000"},  # through an SSH tunnel
        {"origin": VIEWER, "sec_fetch_site": "cross-site"},
    ):
        assert ask(guard.app, kind, **headers) == passed, headers


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_pages_of_other_sites_are_refused(guard, kind):
    for origin in ("http://evil.example", "http://127.0.0.1:1", f"https://{OWN}", "null", ""):
        assert ask(guard.app, kind, origin=origin) == 403, origin


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_request_without_origin_that_a_browser_marks_as_foreign_is_refused(guard, kind, site):
    assert ask(guard.app, kind, sec_fetch_site=site) == 403


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_only_this_machine_s_names_are_hosts_the_viewer_s_is_none(guard, kind):
    for host in ("evil.example", f"evil.example:{8811}", "viewer.example"):
        assert ask(guard.app, kind, host=host) == 400, host
        assert ask(guard.app, kind, host=host, origin=f"http://{host}") == 400, host


def test_without_a_setting_the_server_s_own_origins_are_allowed(guard):
    assert guard.settings.MONAI_LABEL_CORS_ORIGINS == [VIEWER]  # what MONAI Label's CORS reads
    guard.settings.MONAI_LABEL_CORS_ORIGINS = []
    assert guard.allowed_origins() == ["http://127.0.0.1:8811", "http://localhost:8811"]
