"""Decides which requests are answered, and adds security headers to every response.

Any other page open in the same browser can reach a page on loopback. Three kinds of attack are
prevented here. Requests with a host name that is not allowed are refused, against DNS rebinding (an
attacker's name that points to 127.0.0.1). Forms and scripts of other origins may not change
anything. Embedding by other pages (images, frames, scripts) is refused: they may only link here,
which Fetch Metadata headers tell apart. `SameSite=Lax` cookies (`export.serving.app`) prevent a
fourth kind.
"""

import ipaddress
import urllib.parse
from collections.abc import Collection

from starlette import responses
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_READING = ("GET", "HEAD")


class Guard:
    """ASGI middleware that refuses requests not meant for this page."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        """Wraps an application.

        Args:
            app: the application to guard.
            names: host names that requests may use; numeric addresses are always allowed, because
                nobody can make them point elsewhere.
        """
        self._app = app
        self._names = {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses a request or passes it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        answer = responses.JSONResponse({"error": refusal}, 403) if refusal else self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> str:
        """Returns why a request is refused; empty if it is not."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return (
                "this page is not served under that name; use the address that export.serve "
                "printed, or start it with --allowed_host"
            )
        reading = method in _READING
        origin = headers.get("origin")
        if not reading and origin is not None and not _is_at(origin, host):
            return "another page may not use this one"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            fetched = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
            if not (reading and fetched == ("navigate", "document")):
                return "another page may not use this one"
        return ""

    def _is_ours(self, host: str) -> bool:
        try:
            name = urllib.parse.urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True


def _is_at(origin: str, host: str) -> bool:
    try:
        return urllib.parse.urlsplit(origin).netloc == host
    except ValueError:  # Malformed.
        return False
