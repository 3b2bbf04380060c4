"""MONAI Label's server, closed to the web pages of other sites; ``serve.py`` starts it in place of ``monailabel.app``.

The server has no password, and a browser on the same machine reaches it from any page it shows. MONAI Label lets
every page read the answers unless ``MONAI_LABEL_CORS_ORIGINS`` is set. The server loads this file from the app folder,
so it imports nothing of this project.
"""

from collections.abc import Collection

from fastapi import FastAPI
from monailabel.config import settings
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

OWN_HOSTS = ("127.0.0.1", "localhost")
_PAGE_SCHEMES = {"ws": "http", "wss": "https"}


class OwnPagesOnly:
    """Refuses HTTP requests and WebSockets of pages from elsewhere.

    CORS alone would keep the answer from such a page, but a training would start all the same. Browsers mark most
    requests with the header ``Origin``, and those without it (images, links, forms that get) with ``Sec-Fetch-Site``.
    Programs such as 3D Slicer and curl send neither. Pages of ``origins`` and the server's own may ask.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self.app = app
        self.origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, or pass the request on."""
        if scope["type"] == "lifespan" or self._allowed(scope):
            await self.app(scope, receive, send)
        else:
            reply = PlainTextResponse("this server answers no pages of other sites", status_code=403)
            await reply(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is None:
            # "same-site" may be another port of this machine; "none" is an address that somebody typed
            return headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        # an SSH tunnel may give the server another port: its own pages are those of the host that was asked
        scheme = _PAGE_SCHEMES.get(scope["scheme"], scope["scheme"])
        return origin in {f"{scheme}://{headers.get('host')}", *self.origins}


def allowed_origins() -> list[str]:
    """Origins whose pages may use the server: what the user has set, otherwise the server's own."""
    # pydantic ends them with a slash, which no browser sends
    chosen = [str(origin).rstrip("/") for origin in settings.MONAI_LABEL_CORS_ORIGINS]
    return chosen or [f"http://{host}:{settings.MONAI_LABEL_SERVER_PORT}" for host in OWN_HOSTS]


def guarded() -> FastAPI:
    """MONAI Label's application behind both checks."""
    origins = allowed_origins()
    settings.MONAI_LABEL_CORS_ORIGINS = origins
    from monailabel.app import app  # reads the setting while it is imported

    app.add_middleware(OwnPagesOnly, origins=origins)
    # the first check: a site whose name has been pointed to 127.0.0.1 would pass for the server's own, a site that may
    # ask from its own pages included
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(OWN_HOSTS), www_redirect=False)
    return app


app = guarded()
