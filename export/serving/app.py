"""The page as an ASGI application (Starlette) and its server (uvicorn).

    GET    /                       the page
    GET    /recordings             this browser's recordings, with their progress
    POST   /recordings?name&model  uploads the raw bytes of a recording
    POST   /example?model          uses the example instead of an upload
    GET    /recordings/KEY         the result, as an HTML fragment
    GET    /recordings/KEY/FILE    a voice, the recording, the turns (RTTM, JSON), or a picture
    DELETE /recordings/KEY         removes a recording
    DELETE /recordings             removes all recordings of this browser

Errors are JSON, `{"error": "one line for a person"}`.
"""

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator

import anyio
import jinja2
import uvicorn
from starlette import applications, exceptions, middleware, requests, responses, routing

from export.serving import example_audio, guard, model_catalog, recording, sessions, work
from pipeline import errors, version

_TEMPLATES = pathlib.Path(__file__).resolve().parent.parent / "templates"
_SWEEP_SECONDS = 5.0
_STALLED_SECONDS = 30.0
_CLOSE_SECONDS = 5.0
# Time limit for one upload, and the number of uploads at the same time.
_UPLOAD_SECONDS = 1800.0
_COMING = 16
_CONNECTIONS = 200
_READ_ANEW = "load the page again: its server was started anew, or the browser keeps no cookies"


class Page:
    """The state shared by the request handlers.

    Attributes:
        sessions: the sessions of all browsers.
        queue: the recordings to be separated.
        ended: whether all threads had ended when the server ended.
    """

    def __init__(
        self,
        models: model_catalog.Models,
        limits: work.Limits,
        *,
        keep_seconds: float,
        keep_bytes: int = 20_000_000_000,
        at_once: int = 1,
        waiting: int = 16,
        cookie: str = "voices-apart",
    ) -> None:
        """Creates a page that is ready to serve.

        Args:
            models: the models to choose from.
            limits: the limits for one recording.
            keep_seconds: how long files are kept after the browser's last request.
            keep_bytes: total size of all browsers' files beyond which uploads are refused.
            at_once: number of recordings that are separated at the same time.
            waiting: number of further recordings that may wait.
            cookie: the cookie's name; cookies are shared between the ports of a host.
        """
        self.models, self.limits, self.keep_seconds = models, limits, keep_seconds
        self._keep_bytes = keep_bytes
        self.sessions = sessions.Sessions(keep_seconds)
        self.queue = work.Queue(models, limits, at_once, waiting)
        self.ended = True
        self._coming = 0
        self._cookie = cookie
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, _: applications.Starlette) -> AsyncIterator[None]:
        """Loads the first model and removes expired files while the server runs."""
        self.queue.warm_up()
        sweeper = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeper.cancel()
            self.ended = await anyio.to_thread.run_sync(self.queue.close, _CLOSE_SECONDS)
            self.sessions.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.sessions.expire()

    def _token(self, request: requests.Request) -> str:
        """Returns the secret that `index` gave this browser."""
        token = request.cookies.get(self._cookie, "")
        if not self.sessions.is_ours(token):
            raise exceptions.HTTPException(403, _READ_ANEW)
        return token

    def _session(self, request: requests.Request) -> sessions.Session:
        """Returns the session of a browser that sends data, created on its first upload."""
        try:
            return self.sessions.open(self._token(request))
        except errors.UserError as error:
            raise exceptions.HTTPException(503, str(error)) from error

    def _recording(self, request: requests.Request) -> recording.Recording:
        session = self.sessions.find(self._token(request))
        one = session.recordings.get(request.path_params["key"]) if session else None
        if one is None:
            raise exceptions.HTTPException(404, "no such recording; it may have been removed")
        return one

    async def index(self, request: requests.Request) -> responses.Response:
        """Serves the page and gives the browser a secret if it has none of ours."""
        # Behind a reverse proxy on this machine, every client address is the proxy's.
        here = ("127.0.0.1", "::1", "localhost")
        local = (
            request.client is not None
            and request.client.host in here
            and request.url.hostname in here
        )
        template = self._environment.get_template("serve.html.j2")
        answer = responses.HTMLResponse(
            template.render(
                models=self.models.titles,
                limits=self.limits,
                keep_minutes=self.keep_seconds / 60,
                recordings=sessions.RECORDINGS,
                local=local,
                version=version.VERSION,
            )
        )
        if not self.sessions.is_ours(request.cookies.get(self._cookie, "")):
            token = self.sessions.new_token()
            answer.set_cookie(self._cookie, token, httponly=True, samesite="lax")
        return answer

    async def listing(self, request: requests.Request) -> responses.Response:
        """Lists this browser's recordings with their progress."""
        token = self._token(request)
        if self.sessions.has_expired(token):
            raise exceptions.HTTPException(
                403, "this page was away for too long, and its recordings were removed"
            )
        session = self.sessions.find(token)
        return responses.JSONResponse(
            [
                {
                    "key": one.key,
                    "name": one.name,
                    "state": one.state,
                    "stage": one.stage,
                    "step": one.step,
                    "fraction": one.fraction,
                    "ahead": self.queue.ahead(one) if one.state == recording.WAITING else 0,
                    "message": one.message,
                }
                for one in (session.recordings.values() if session else ())
            ]
        )

    async def upload(self, request: requests.Request) -> responses.Response:
        """Accepts the bytes of a recording and checks them before it answers."""
        with self._arriving(request, request.query_params.get("name", "")) as one:
            try:
                with anyio.fail_after(_UPLOAD_SECONDS):
                    await self._receive(request, one.source)
            except TimeoutError as error:
                raise exceptions.HTTPException(408, "it came too slowly; try again") from error
            except requests.ClientDisconnect as error:
                raise exceptions.HTTPException(400, "it broke off") from error
            await anyio.to_thread.run_sync(work.check, one, self.limits)
            # Otherwise an upload cancelled during the check would appear in the list after all.
            if await request.is_disconnected():
                raise exceptions.HTTPException(400, "it broke off")
        return self._take(request, one)

    async def example(self, request: requests.Request) -> responses.Response:
        """Accepts the example as if it had been uploaded."""
        with self._arriving(request, example_audio.NAME) as one:
            await anyio.to_thread.run_sync(example_audio.write, one.source, self.limits.seconds)
        return self._take(request, one)

    @contextlib.contextmanager
    def _arriving(self, request: requests.Request, name: str) -> Iterator[recording.Recording]:
        """Counts a recording while it is uploaded, and discards it if the upload fails.

        Raises:
            HTTPException: no more recordings are accepted now, or none from this browser; or the
                upload failed, with a message that contains no path.
        """
        try:
            one = self._begin(request, name)
            self._coming += 1
            try:
                yield one
            except BaseException as error:
                one.discard()
                if isinstance(error, errors.UserError):
                    raise exceptions.HTTPException(422, one.explain(error)) from error
                raise
            finally:
                self._coming -= 1
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise exceptions.HTTPException(
                507, f"the machine that serves this page cannot store it: {reason}"
            ) from error

    def _begin(self, request: requests.Request, name: str) -> recording.Recording:
        self._session(request)
        model = request.query_params.get("model") or self.models.default
        if model not in self.models.titles:
            raise exceptions.HTTPException(422, "there is no such model here")
        if self.queue.full or self._coming >= _COMING:
            raise exceptions.HTTPException(503, "too many recordings are waiting; try again later")
        if self.sessions.num_bytes() >= self._keep_bytes:
            raise exceptions.HTTPException(
                507,
                f"the recordings here take {self._keep_bytes / 1e9:g} GB, as much as they may; "
                "remove one, or try again later",
            )
        return recording.Recording(self.sessions.ensure_folder(), name, model)

    def _take(self, request: requests.Request, one: recording.Recording) -> responses.Response:
        """Adds an uploaded recording to its session and the queue, if they still have room."""
        try:
            session = self._session(request)
            if self.queue.full:
                raise exceptions.HTTPException(503, "too many recordings wait; try again later")
            try:
                session.make_room()
            except errors.UserError as error:
                raise exceptions.HTTPException(429, str(error)) from error
        except exceptions.HTTPException:
            one.discard()
            raise
        session.recordings[one.key] = one
        self.queue.submit(one)
        return responses.JSONResponse({"key": one.key}, 202)

    async def _receive(self, request: requests.Request, path: pathlib.Path) -> None:
        """Writes the request body to a file, up to the size limit."""
        most = self.limits.num_bytes
        too_large = exceptions.HTTPException(
            413,
            f"larger than {most / 1e6:g} MB, which is what this page takes; voices-apart "
            "separate takes files of any size",
        )
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise too_large
        taken = 0
        try:
            async with await anyio.open_file(path, "xb") as file:
                chunks = request.stream().__aiter__()
                while True:
                    with anyio.fail_after(_STALLED_SECONDS):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return
                    taken += len(chunk)
                    if taken > most:
                        raise too_large
                    await file.write(chunk)
        except TimeoutError as error:
            raise exceptions.HTTPException(408, "nothing came for too long; try again") from error

    async def result(self, request: requests.Request) -> responses.Response:
        """Serves the tiles of a finished recording."""
        one = self._recording(request)
        if one.state != recording.DONE:
            raise exceptions.HTTPException(404, "not separated yet")
        template = self._environment.get_template("serve_result.html.j2")
        return responses.HTMLResponse(template.render(one.view))

    async def file(self, request: requests.Request) -> responses.Response:
        """Serves a file of a recording, by its listed name."""
        one = self._recording(request)
        file = one.files.get(request.path_params["file"])
        if file is None or one.state != recording.DONE or not file.path.exists():
            raise exceptions.HTTPException(404, "no such file")
        return responses.FileResponse(
            file.path,
            media_type=file.media_type,
            filename=file.name,
            content_disposition_type="inline",
        )

    async def remove(self, request: requests.Request) -> responses.Response:
        """Removes a recording."""
        session = self.sessions.find(self._token(request))
        if session is None or not session.remove(request.path_params["key"]):
            raise exceptions.HTTPException(404, "no such recording")
        return responses.Response(status_code=204)

    async def remove_all(self, request: requests.Request) -> responses.Response:
        """Removes all recordings of this browser."""
        session = self.sessions.find(self._token(request))
        if session is not None:
            session.close()
        return responses.Response(status_code=204)


def create(page: Page, names: Collection[str]) -> applications.Starlette:
    """Creates the application.

    Args:
        page: the page to serve.
        names: host names that requests may use, besides numeric addresses.
    """

    async def problem(_: requests.Request, error: Exception) -> responses.Response:
        assert isinstance(error, exceptions.HTTPException)
        return responses.JSONResponse({"error": error.detail}, error.status_code)

    async def fault(_: requests.Request, error: Exception) -> responses.Response:
        del error  # Uvicorn writes it to stderr.
        return responses.JSONResponse({"error": "the page has a fault; see its terminal"}, 500)

    def asset(media_type: str, *files: str) -> routing.Route:
        body = "\n".join((_TEMPLATES / file).read_text(encoding="utf-8") for file in files)

        async def answer(_: requests.Request) -> responses.Response:
            return responses.Response(body, media_type=media_type)

        return routing.Route(f"/{files[-1]}", answer)

    return applications.Starlette(
        routes=[
            routing.Route("/", page.index),
            asset("text/css", "report.css", "serve.css"),
            asset("text/javascript", "players.js", "serve_microphone.js", "serve.js"),
            asset("image/svg+xml", "brand.svg"),
            routing.Route("/example", page.example, methods=["POST"]),
            routing.Route("/recordings", page.listing),
            routing.Route("/recordings", page.upload, methods=["POST"]),
            routing.Route("/recordings", page.remove_all, methods=["DELETE"]),
            routing.Route("/recordings/{key}", page.result),
            routing.Route("/recordings/{key}", page.remove, methods=["DELETE"]),
            routing.Route("/recordings/{key}/{file}", page.file),
        ],
        middleware=[middleware.Middleware(guard.Guard, names=names)],
        exception_handlers={exceptions.HTTPException: problem, Exception: fault},
        lifespan=page.lifespan,
    )


class _Server(uvicorn.Server):
    """A server that also stops for a signal received before its own handlers were installed."""

    def __init__(self, config: uvicorn.Config, is_asked_to_end: Callable[[], bool]) -> None:
        super().__init__(config)
        self._is_asked_to_end = is_asked_to_end

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._is_asked_to_end()


def server(
    application: applications.Starlette, is_asked_to_end: Callable[[], bool] = lambda: False
) -> uvicorn.Server:
    """Creates a server; its `run(sockets=[…])` serves until a signal is received.

    Args:
        application: the application to serve.
        is_asked_to_end: returns whether a signal has been received already.
    """
    return _Server(
        uvicorn.Config(
            application,
            access_log=False,
            lifespan="on",
            limit_concurrency=_CONNECTIONS,
            log_level="error",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            ws="none",
        ),
        is_asked_to_end,
    )
