"""The page of one's own machine: what it answers, and what it looks like in a real browser."""

import contextlib
import errno
import http.client
import io
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import wave

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from export.conversations import file_separation, routing, speakers
from export.separation import jobs
from export.serving import app, example_audio, model_catalog, recording, sessions, work
from pipeline import errors
from pipeline.corpora import conversation, espeak

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT_BYTES = 400_000
LIMIT_SECONDS = 12.0


@pytest.fixture(autouse=True)
def both_outputs(monkeypatch):
    """Noise is nobody's voice, let alone two persons': the outputs stay as the model has them."""
    monkeypatch.setattr(speakers, "find", lambda *_, **__: routing.Routing.constant())


class Client:
    """One browser: its cookie, and nothing else."""

    def __init__(self, port):
        self.port, self.cookie = port, ""
        self.cookie = self.ask("GET", "/").headers["Set-Cookie"].partition(";")[0]

    def ask(self, method, path, body=None, **headers):
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"Cookie": self.cookie, **{k.replace("_", "-"): v for k, v in headers.items()}}
        link.request(method, path, body, {k: v for k, v in sent.items() if v})
        answer = link.getresponse()
        answer.body = answer.read()
        link.close()
        return answer

    def send(self, data, name="talk.wav", **more):
        return self.ask(
            "POST", "/recordings?" + urllib.parse.urlencode({"name": name, **more}), data
        )

    def error(self, answer):
        found = json.loads(answer.body)
        assert list(found) == ["error"]
        assert "Traceback" not in found["error"]
        assert "/tmp" not in found["error"]
        assert "\n" not in found["error"]
        return found["error"]

    def listing(self):
        return {one["key"]: one for one in json.loads(self.ask("GET", "/recordings").body)}

    def ended(self, answer):
        """The recording that was taken, when nothing more is done with it."""
        assert answer.status == 202, answer.body
        key = json.loads(answer.body)["key"]
        for _ in range(600):
            one = self.listing()[key]
            if one["state"] in ("done", "failed"):
                return one
            time.sleep(0.05)
        raise AssertionError(one)


@contextlib.contextmanager
def serving(models, **settings):
    """A page on a port of its own, in a thread."""
    limits = work.Limits(LIMIT_BYTES, LIMIT_SECONDS)
    page = app.Page(model_catalog.Models(models), limits, **{"keep_seconds": 60, **settings})
    listener = socket.create_server(("127.0.0.1", 0))
    page.port = listener.getsockname()[1]
    server = app.server(app.create(page, {"localhost"}))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield page
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
        assert not page.sessions.folder.exists()


@pytest.fixture(scope="module")
def page(bands, make_stub):
    def broken(waveform):
        raise RuntimeError("out of cheese")

    with serving({"bands": bands, "broken": make_stub(broken)}) as page:
        yield page


@pytest.fixture
def client(page):
    return Client(page.port)


@pytest.fixture
def other(page):
    return Client(page.port)


def encoded(samples, rate=8000, **how):
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, **{"format": "WAV", "subtype": "PCM_16", **how})
    return stream.getvalue()


def files_below(folder):
    return {path for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


class TestSeparation:
    @pytest.mark.parametrize(
        ("rate", "channels", "how"),
        [
            (8000, 1, {}),
            (22050, 2, {"format": "FLAC"}),
            (16000, 1, {"format": "WAV", "subtype": "FLOAT"}),
            (8000, 1, {"format": "OGG", "subtype": "VORBIS"}),
        ],
    )
    def test_voices_are_those_of_the_command(
        self, client, bands, tmp_path, speechlike, rate, channels, how
    ):
        samples = np.stack([speechlike(2 * rate, c, 0.1) for c in range(channels)], axis=1)
        data = encoded(samples, rate, **how)
        one = client.ended(client.send(data, "a talk.wav"))
        assert one["state"] == "done", one
        (tmp_path / "a talk.wav").write_bytes(data)
        job = jobs.Job(tmp_path / "a talk.wav", tmp_path / "a talk")
        for path in file_separation.separate_file(job, bands).files:
            number = re.search(r"(\d)\.wav", path.name)[1]
            answer = client.ask("GET", f"/recordings/{one['key']}/voice{number}.wav")
            assert answer.body == path.read_bytes()
            said = answer.headers["Content-Disposition"]
            assert urllib.parse.unquote(said).endswith(f"''{path.name}")
        played, played_rate = soundfile.read(
            io.BytesIO(client.ask("GET", f"/recordings/{one['key']}/mixture.wav").body)
        )
        expected, _ = soundfile.read(io.BytesIO(data))
        assert played_rate == rate
        np.testing.assert_allclose(played, expected, atol=1 / 32768)

    def test_pictures_are_of_their_voices(self, client, speechlike):
        """Voice 1 of this model is what lies below 1 kHz, a quarter of the height."""
        from PIL import Image

        key = client.ended(client.send(encoded(speechlike(16000))))["key"]

        def rows(name):
            data = client.ask("GET", f"/recordings/{key}/{name}").body
            return np.asarray(Image.open(io.BytesIO(data)).convert("L"), float).mean(axis=1)

        assert rows("mixture.png").size == 129
        low, high = slice(100, 129), slice(0, 90)
        assert rows("voice1.png")[low].mean() > 10 * rows("voice1.png")[high].mean()
        assert rows("voice2.png")[high].mean() > 3 * rows("voice2.png")[low].mean()
        assert rows("mask1.png")[low].mean() > 2 * rows("mask1.png")[high].mean()
        assert rows("who.png").size == 129
        text = client.ask("GET", f"/recordings/{key}").body.decode()
        for name in re.findall(r'(?:src|href)="(recordings/[^"]+)"', text):
            assert client.ask("GET", f"/{name}").status == 200, name
        assert len(re.findall(r"<img ", text)) == 6
        assert len(re.findall(r"<audio ", text)) == 3

    def test_pictures_show_the_band_of_the_recording(self, client):
        from PIL import Image

        tone = (0.3 * np.sin(2 * np.pi * 6000 / 16000 * np.arange(16000))).astype(np.float32)
        key = client.ended(client.send(encoded(tone, 16000)))["key"]
        data = client.ask("GET", f"/recordings/{key}/mixture.png").body
        rows = np.asarray(Image.open(io.BytesIO(data)).convert("L"), float).mean(axis=1)
        # 6 of 8 kHz, from below.
        assert abs(rows.argmax() - 129 / 4) < 3
        assert "8 kHz" in client.ask("GET", f"/recordings/{key}").body.decode()

    def test_who_speaks_when(self, client):
        """Low sounds are voice 1's, high ones voice 2's; as lanes, and as files to download."""
        seconds = np.arange(5 * 8000) / 8000
        low = np.sin(2 * np.pi * 300 * seconds) * (seconds < 2)
        high = np.sin(2 * np.pi * 2500 * seconds) * (seconds > 1.5) * (seconds < 4)
        one = client.ended(client.send(encoded(0.2 * (low + high)), "a <b>talk.wav"))
        text = client.ask("GET", f"/recordings/{one['key']}").body.decode()
        bars = re.findall(r'<rect class="voice(\d)" x="([\d.]+)" [^>]*width="([\d.]+)"', text)
        expected = [("1", 0.0, 2.0), ("2", 1.5, 2.5)]
        # Both lanes over the recording, each over its voice.
        for (voice, start, length), wanted in zip(bars, expected * 2, strict=True):
            assert voice == wanted[0]
            assert float(start) == pytest.approx(wanted[1], abs=0.11)
            assert float(length) == pytest.approx(wanted[2], abs=0.21)
        assert "Voice 1 speaks in 1 turn, 40 % of the time" in text
        rttm = client.ask("GET", f"/recordings/{one['key']}/turns.rttm")
        lines = [line.split() for line in rttm.body.decode().splitlines()]
        assert [(line[1], line[7]) for line in lines] == [
            ("a_<b>talk", "voice1"), ("a_<b>talk", "voice2"),
        ]  # fmt: skip
        answer = client.ask("GET", f"/recordings/{one['key']}/turns.json")
        told = json.loads(answer.body)
        assert told["recording"] == "a <b>talk.wav"
        assert [voice["file"] for voice in told["voices"]] == [
            "a <b>talk_voice1.wav", "a <b>talk_voice2.wav",
        ]  # fmt: skip
        assert "/tmp" not in answer.body.decode()
        assert 'download="a &lt;b&gt;talk_voices.rttm"' in text

    def test_parts_of_a_file_for_players_that_seek(self, client, speechlike):
        key = client.ended(client.send(encoded(speechlike(8000))))["key"]
        whole = client.ask("GET", f"/recordings/{key}/voice1.wav")
        part = client.ask("GET", f"/recordings/{key}/voice1.wav", Range="bytes=100-199")
        assert part.status == 206
        assert part.body == whole.body[100:200]

    def test_a_copy_is_no_separation(self, make_stub, speechlike):
        half = make_stub(lambda waveform: np.stack([waveform / 2] * 2, axis=1))
        with serving({"half": half}) as page:
            client = Client(page.port)
            key = client.ended(client.send(encoded(speechlike(8000))))["key"]
            text = client.ask("GET", f"/recordings/{key}").body.decode()
            assert "does not tell the voices apart" in text

    def test_a_model_that_fails_says_so(self, client, speechlike):
        one = client.ended(client.send(encoded(speechlike(8000)), model="broken"))
        assert one["state"] == "failed"
        assert one["message"] == "the model broken failed (RuntimeError)"
        assert client.ask("GET", f"/recordings/{one['key']}").status == 404
        # The thread goes on.
        assert client.ended(client.send(encoded(speechlike(8000))))["state"] == "done"

    def test_a_fault_of_the_page_is_not_blamed_on_the_model(self, client, speechlike, monkeypatch):
        def fail(*_):
            raise ValueError

        monkeypatch.setattr(work.view, "complete", fail)
        one = client.ended(client.send(encoded(speechlike(8000))))
        assert one["state"] == "failed"
        assert one["message"] == "the page failed while drawing (ValueError); see its terminal"

    @pytest.mark.parametrize(("rate", "samples"), [(44100, 1), (192000, 1), (192000, 5)])
    def test_less_than_one_sample_of_the_pictures(self, client, rate, samples):
        one = client.ended(client.send(encoded(np.full(samples, 0.1), rate)))
        assert one["state"] == "done", one
        voice = client.ask("GET", f"/recordings/{one['key']}/voice1.wav").body
        assert soundfile.info(io.BytesIO(voice)).frames == samples
        picture = client.ask("GET", f"/recordings/{one['key']}/mixture.png").body
        assert picture.startswith(b"\x89PNG")

    def test_the_example(self, client, tmp_path):
        one = client.ended(client.ask("POST", "/example"))
        assert one["name"] == "example.wav"
        data = client.ask("GET", f"/recordings/{one['key']}/mixture.wav").body
        with wave.open(io.BytesIO(data)) as file:
            assert 3 < file.getnframes() / file.getframerate() <= LIMIT_SECONDS

    def test_the_example_without_espeak(self, monkeypatch, tmp_path):
        def absent():
            raise espeak.EspeakError("not there")

        monkeypatch.setattr(conversation, "make", absent)
        example_audio.write(tmp_path / "example.wav")
        samples, rate = soundfile.read(tmp_path / "example.wav")
        assert 15 < len(samples) / rate < 30
        assert 0.02 < np.sqrt(np.square(samples).mean()) < 0.2


class TestHostileUploads:
    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "no bytes"),
            (b"<html><script>alert(1)</script>", "not audio"),
            (bytes(5000), "begins with zeros"),
            (b"RIFF....WAVEfmt", "cut short"),
            (encoded(np.zeros(9000))[:-5000], "cut short"),
            (encoded(np.zeros((2000, 48))), "48 channels"),
            (encoded(np.zeros(100_000)), "longer than 0.2 minutes"),
            # Seven minutes at the largest rate in less bytes than a second of speech.
            (encoded(np.zeros(10_000_000), 655350, format="FLAC"), "more than this page takes"),
            (encoded(np.zeros(40_000_000), 384000, format="FLAC"), "longer than"),
        ],
        ids=["nothing", "page", "zeros", "header", "cut", "48", "long", "rate", "bomb"],
    )  # fmt: skip
    def test_are_refused_with_a_message(self, page, client, data, words):
        assert len(data) < LIMIT_BYTES
        answer = client.send(data)
        assert answer.status == 422
        assert words in client.error(answer)
        assert client.listing() == {}

    def test_what_shows_late_is_told_too(self, client, speechlike):
        """Headers that are in order, samples that are not."""
        data = bytearray(encoded(speechlike(40000), format="FLAC"))
        data[len(data) // 2 : len(data) // 2 + 600] = os.urandom(600)
        one = client.ended(client.send(bytes(data)))
        assert one["state"] == "failed"
        assert re.search("damaged|cut|decoded", one["message"])
        assert "/tmp" not in one["message"]

    def test_a_length_that_no_header_tells(self, client):
        """FLAC that was written into a pipe; a bomb that only unfolding shows."""
        data = bytearray(encoded(np.zeros(400_000), format="FLAC"))
        data[18 + 3] &= 0xF0
        data[18 + 4 : 18 + 24] = bytes(20)
        one = client.ended(client.send(bytes(data)))
        assert one["state"] == "failed"
        assert "longer than" in one["message"]

    @pytest.mark.parametrize("how", ["length", "chunks"])
    def test_too_many_bytes(self, page, client, how):
        data = bytes(LIMIT_BYTES + 1)
        if how == "length":
            answer = client.send(data)
        else:
            answer = client.send(iter([data[:300_000], data[300_000:]]))
        assert answer.status == 413
        assert "larger than 0.4 MB" in client.error(answer)

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("../../../etc/passwd", "passwd"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("/etc/shadow.wav", "shadow.wav"),
            ("..", "recording"),
            ("", "recording"),
            ("a\0b\r\nSet-Cookie: x=y.wav", "abSet-Cookie: x=y.wav"),
            ("x" * 5000, "x" * 120),
            ("<img src=x onerror=alert(1)>.wav", "<img src=x onerror=alert(1)>.wav"),
            ("Gespräch \u202e名前.wav", "Gespräch 名前.wav"),
        ],
    )
    def test_names_are_words_and_no_paths(self, page, client, name, shown):
        before = set(page.sessions.folder.iterdir())
        one = client.ended(client.send(encoded(np.full(800, 0.1)), name))
        assert one["name"] == shown
        (folder,) = set(page.sessions.folder.iterdir()) - before
        assert folder.name == one["key"]
        assert not any("pass" in path.name or "img" in path.name for path in files_below(folder))
        text = client.ask("GET", f"/recordings/{one['key']}").body.decode()
        assert "<img src=x" not in text
        said = client.ask("GET", f"/recordings/{one['key']}/voice1.wav").headers
        assert "Set-Cookie" not in said
        assert re.fullmatch(r"[ -~]*", said["Content-Disposition"])

    @pytest.mark.parametrize(
        "path",
        [
            "/recordings/{}/../../../../etc/passwd",
            "/recordings/{}/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
            "/recordings/{}/..%2fsource",
            "/recordings/{}/source",
            "/recordings/{}/out_voice1.wav",
            "/recordings/../lock",
            "/../setup.py",
            "/serve.html.j2",
        ],
    )
    def test_paths_lead_nowhere(self, client, path):
        key = client.ended(client.send(encoded(np.full(800, 0.1))))["key"]
        answer = client.ask("GET", path.format(key))
        assert answer.status == 404
        assert len(answer.body) < 100

    def test_headers_without_end(self, tmp_path):
        """A RIFF file of tiny chunks, and a clock that has run out."""
        one = recording.Recording(tmp_path, "x.wav", "m")
        one.source.write_bytes(b"RIFF\0\0\0\0WAVE" + 100_000 * b"junk\0\0\0\0")
        reads = []

        def counted(function):
            return lambda *given: reads.append(1) or function(*given)

        limits = work.Limits(10**9, 60, header_seconds=0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(work._TimedFile, "read", counted(work._TimedFile.read))
            with pytest.raises(errors.UserError, match="headers take more than 0 seconds"):
                work.check(one, limits)
        assert len(reads) < 10
        # With time it is what it is.
        with pytest.raises(errors.UserError, match="before its first sample"):
            work.check(one, work.Limits(10**9, 60))

    def test_a_body_that_breaks_off(self, page, client):
        before = set(os.listdir(page.sessions.folder))
        with socket.create_connection(("127.0.0.1", page.port)) as link:
            link.sendall(
                f"POST /recordings?name=x HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {client.cookie}"
                "\r\nContent-Length: 1000\r\n\r\nRIFF".encode()
            )
            time.sleep(0.2)
        for _ in range(400):
            if set(os.listdir(page.sessions.folder)) == before:
                break
            time.sleep(0.05)
        assert set(os.listdir(page.sessions.folder)) == before

    def test_cancelled_after_the_last_byte(self, page, client, monkeypatch):
        before = set(os.listdir(page.sessions.folder))
        checking, cancelled = threading.Event(), threading.Event()

        def check_slowly(*_):
            checking.set()
            cancelled.wait(20)

        monkeypatch.setattr(work, "check", check_slowly)
        data = encoded(np.full(800, 0.1))
        with socket.create_connection(("127.0.0.1", page.port)) as link:
            link.sendall(
                f"POST /recordings?name=x HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {client.cookie}"
                f"\r\nContent-Length: {len(data)}\r\n\r\n".encode()
                + data
            )
            assert checking.wait(20)
        # The server answers a later request, so it has seen the end of that connection.
        assert client.listing() == {}
        cancelled.set()
        for _ in range(400):
            if not page._coming:
                break
            time.sleep(0.05)
        assert client.listing() == {}
        assert set(os.listdir(page.sessions.folder)) == before


class TestStrangers:
    def test_two_people_do_not_see_each_other(self, client, other):
        key = client.ended(client.send(encoded(np.full(800, 0.1))))["key"]
        assert other.listing() == {}
        for method, path in (
            ("GET", f"/recordings/{key}"),
            ("GET", f"/recordings/{key}/voice1.wav"),
            ("DELETE", f"/recordings/{key}"),
        ):
            assert other.ask(method, path).status == 404
            other_cookie, other.cookie = other.cookie, ""
            assert other.ask(method, path).status in (403, 404)
            other.cookie = other_cookie
        assert client.ask("GET", f"/recordings/{key}/voice1.wav").status == 200

    def test_secrets_are_long_and_never_alike(self, client, other):
        tokens = {c.cookie.partition("=")[2] for c in (client, other)}
        assert len(tokens) == 2
        assert min(map(len, tokens)) >= 43  # 256 bits
        said = Client(client.port).ask("GET", "/", Cookie="x=y").headers["Set-Cookie"]
        assert "HttpOnly" in said
        assert "SameSite=lax" in said
        # A cookie that somebody invents does not become a session.
        secret, signature = client.cookie.split(".")
        for cookie in ("voices-apart=mine", "voices-apart=ä.ö", secret, f"{secret}x.{signature}"):
            client.cookie = cookie.encode().decode("latin-1")
            assert client.ask("GET", "/recordings").status == 403
            assert client.ask("POST", "/example").status == 403
            assert "load the page again" in client.error(client.ask("DELETE", "/recordings"))

    def test_who_only_looks_takes_nobodys_place(self, page, client, other):
        """Another page's images, and anybody's visits without end."""
        key = client.ended(client.send(encoded(np.full(800, 0.1))))["key"]
        before = dict(page.sessions._sessions)
        for _ in range(2 * sessions._SESSIONS):
            answer = client.ask("GET", "/", Cookie="", Sec_Fetch_Site="cross-site",
                                Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="image")  # fmt: skip
            assert answer.status == 403
            assert "Set-Cookie" not in answer.headers
            assert client.ask("GET", "/", Cookie="").status == 200
        assert page.sessions._sessions == before
        assert list(client.listing()) == [key]
        assert other.ended(other.send(encoded(np.full(800, 0.1))))["state"] == "done"

    @pytest.mark.parametrize(
        ("host", "status"),
        [
            ("127.0.0.1:{}", 200),
            ("localhost:{}", 200),
            ("[::1]:{}", 200),
            ("evil.example:{}", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost.evil.example", 403),
            ("[", 403),
            ("", 403),
        ],
    )
    def test_names_of_hosts(self, client, host, status):
        link = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
        link.putrequest("GET", "/", skip_host=True)
        link.putheader("Host", host.format(client.port))
        link.endheaders()
        assert link.getresponse().status == status
        link.close()

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:1"},
            {"Origin": "http://["},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site"},
        ],
    )
    def test_other_pages_change_nothing(self, client, headers):
        for method, path in (("POST", "/example"), ("DELETE", "/recordings")):
            answer = client.ask(method, path, **headers)
            assert answer.status == 403
            assert "another page" in client.error(answer)
        own = f"http://127.0.0.1:{client.port}"
        assert client.ask("DELETE", "/recordings", Origin=own).status == 204

    @pytest.mark.parametrize(
        ("site", "mode", "destination", "status"),
        [
            ("none", "navigate", "document", 200),
            ("same-origin", "cors", "empty", 200),
            # A link to the page, which its reader follows.
            ("cross-site", "navigate", "document", 200),
            ("cross-site", "navigate", "iframe", 403),
            ("cross-site", "no-cors", "script", 403),
            ("same-site", "no-cors", "image", 403),
        ],
    )
    def test_other_pages_may_link_and_not_embed(self, client, site, mode, destination, status):
        answer = client.ask(
            "GET", "/", Sec_Fetch_Site=site, Sec_Fetch_Mode=mode, Sec_Fetch_Dest=destination
        )
        assert answer.status == status

    @pytest.mark.parametrize("path", ["/", "/serve.js", "/recordings", "/nothing"])
    def test_headers_of_every_answer(self, client, path):
        headers = client.ask("GET", path).headers
        rules = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
        assert rules["default-src"] == "'none'"
        assert set(rules.values()) == {"'none'", "'self'"}
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"
        assert "Server" not in headers

    def test_loads_nothing_from_elsewhere(self, client):
        for path in ("/", "/serve.js", "/serve.css", "/brand.svg"):
            text = client.ask("GET", path).body.decode()
            text = text.replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?:|//[a-z]|@import|url\(", text), path


class TestLifetime:
    def test_removed_on_request(self, page, client):
        key = client.ended(client.send(encoded(np.full(800, 0.1))))["key"]
        folder = page.sessions.folder / key
        assert files_below(folder)
        assert client.ask("DELETE", f"/recordings/{key}").status == 204
        assert not folder.exists()
        assert client.listing() == {}
        for _ in range(2):
            key = client.ended(client.send(encoded(np.full(800, 0.1))))["key"]
        assert client.ask("DELETE", "/recordings").status == 204
        assert client.listing() == {}
        assert not (page.sessions.folder / key).exists()

    def test_the_oldest_makes_room(self, page, client):
        keys = [
            client.ended(client.send(encoded(np.full(800, 0.1))))["key"]
            for _ in range(sessions.RECORDINGS + 1)
        ]
        assert list(client.listing()) == keys[1:]
        assert not (page.sessions.folder / keys[0]).exists()

    def test_all_of_them_together_take_no_more_than_they_may(self, bands):
        sound = encoded(np.random.default_rng(0).uniform(-0.5, 0.5, 16000))
        with serving({"bands": bands}, keep_bytes=len(sound)) as page:
            client, other = Client(page.port), Client(page.port)
            key = client.ended(client.send(sound))["key"]
            assert page.sessions.num_bytes() >= len(sound)
            answer = other.send(sound)
            assert answer.status == 507
            assert "remove one" in other.error(answer)
            assert client.ask("DELETE", f"/recordings/{key}").status == 204
            other.ended(other.send(sound))

    def test_after_the_session(self, tmp_path):
        now = 0.0
        held = sessions.Sessions(60, clock=lambda: now)
        quiet, busy = held.open(held.new_token()), held.open(held.new_token())
        recordings = []
        for session in (quiet, busy):
            one = recording.Recording(held.folder, "x.wav", "m")
            one.source.write_bytes(b"x")
            session.recordings[one.key] = one
            recordings.append(one)
        now = 59.0
        assert held.find(busy.token) is busy
        now = 61.0
        held.expire()
        assert held.find(quiet.token) is None
        assert held.has_expired(quiet.token)
        # It is told once, and what its browser sends then begins anew.
        assert not held.has_expired(quiet.token)
        assert held.open(quiet.token).recordings == {}
        assert not held.has_expired(busy.token)
        assert not recordings[0].folder.exists()
        assert recordings[1].source.exists()
        assert held.folder.stat().st_mode & 0o077 == 0
        held.close()
        assert not held.folder.exists()

    def test_what_a_killed_server_left(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sessions.tempfile, "gettempdir", lambda: str(tmp_path))
        monkeypatch.setattr(sessions.tempfile, "tempdir", str(tmp_path))
        running = sessions.Sessions(60)
        left = tmp_path / "voices-apart-page-killed"
        left.mkdir()
        (left / "lock").touch()
        (left / "voice").touch()
        for folder in (running.folder, left):
            os.utime(folder, (1, 1))
        sessions.Sessions(60).close()
        assert not left.exists()
        assert running.folder.exists()
        running.close()

    def test_a_folder_that_the_system_cleaned_up(self, bands):
        with serving({"bands": bands}) as page:
            client, before = Client(page.port), page.sessions.folder
            lost = client.ended(client.send(encoded(np.full(800, 0.1))))["key"]
            shutil.rmtree(before)
            key = client.ended(client.send(encoded(np.full(800, 0.1))))["key"]
            assert client.ask("GET", f"/recordings/{key}/voice1.wav").status == 200
            assert client.ask("GET", f"/recordings/{lost}/voice1.wav").status == 404
            assert client.ended(client.ask("POST", "/example"))["state"] == "done"
            # Another server takes it for one in use.
            folder = page.sessions.folder
            assert folder != before
            os.utime(folder, (1, 1))
            sessions.Sessions(60).close()
            assert folder.exists()

    @pytest.mark.parametrize(
        ("error", "status", "words"),
        [
            (
                OSError(errno.ENOSPC, "No space left on device", "/tmp/x"),
                507,
                "the machine that serves this page cannot store it: No space left on device",
            ),
            (
                errors.UserError("{}: cannot be written whole; is the disk full?"),
                422,
                "cannot be written whole; is the disk full?",
            ),
        ],
        ids=["system", "library"],
    )
    def test_a_full_disk(self, page, client, monkeypatch, error, status, words):
        def fail(path, _):
            raise error if isinstance(error, OSError) else type(error)(str(error).format(path))

        before = set(os.listdir(page.sessions.folder))
        monkeypatch.setattr(example_audio, "write", fail)
        answer = client.ask("POST", "/example")
        assert answer.status == status
        assert client.error(answer) == words
        assert client.listing() == {}
        assert set(os.listdir(page.sessions.folder)) == before

    def test_a_file_that_cannot_be_stored(self, page, client):
        before = set(os.listdir(page.sessions.folder))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        try:
            answer = client.send(encoded(np.full(100_000, 0.1)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert answer.status == 507
        assert client.error(answer).startswith("the machine that serves this page cannot store it")
        assert set(os.listdir(page.sessions.folder)) == before

    def test_no_page_names_a_command(self, tmp_path):
        """The disk was full in the middle of a separation."""
        one = recording.Recording(tmp_path, "x.wav", "m")
        full = OSError(errno.ENOSPC, "No space left on device", str(one.folder / "voice.wav"))
        expected = "voice.wav: No space left on device; free some space, then try again"
        assert one.explain(full) == expected

    def test_many_sessions_push_out_idle_ones_alone(self):
        held = sessions.Sessions(60)
        busy = held.open(held.new_token())
        busy.recordings["k"] = recording.Recording(held.folder, "x", "m")
        for _ in range(500):
            held.open(held.new_token())
        assert held.find(busy.token) is busy
        held.close()


class TestQueue:
    @pytest.fixture
    def gate(self, make_stub):
        """A model that waits until it is let go, and how often it runs at once."""
        free, running, most = threading.Event(), [], []

        def separate_slowly(waveform):
            running.append(1)
            most.append(len(running))
            free.wait(20)
            running.pop()
            return np.stack([waveform / 2] * 2, axis=1)

        model = make_stub(separate_slowly)
        model.free, model.most = free, most
        return model

    def test_bounded_and_in_turn(self, gate):
        data = encoded(np.full(800, 0.1))
        with serving({"gate": gate}, waiting=2) as page:
            clients = [Client(page.port) for _ in range(4)]
            answers = [client.send(data) for client in clients]
            assert [answer.status for answer in answers] == [202, 202, 202, 503]
            assert "too many" in clients[3].error(answers[3])
            for _ in range(100):
                (first,), (third,) = (c.listing().values() for c in (clients[0], clients[2]))
                if first["state"] == "running":
                    break
                time.sleep(0.05)
            assert (third["state"], third["ahead"]) == ("waiting", 2)
            # Nobody waits for what somebody gave up.
            clients[1].ask("DELETE", "/recordings")
            assert next(iter(clients[2].listing().values()))["ahead"] == 1
            again = clients[3].send(data)
            assert again.status == 202
            gate.free.set()
            assert clients[2].ended(answers[2])["state"] == "done"
            assert clients[3].ended(again)["state"] == "done"
            assert max(gate.most) == 1
            assert len(gate.most) == 3

    def test_examples_are_counted_too(self, bands, monkeypatch):
        free, begun = threading.Event(), []

        def write_slowly(path, seconds):
            begun.append(path)
            free.wait(20)
            path.write_bytes(encoded(np.full(800, 0.1)))

        monkeypatch.setattr(example_audio, "write", write_slowly)
        with serving({"bands": bands}, waiting=100) as page:
            client, answers = Client(page.port), []

            def take():
                answers.append(client.ask("POST", "/example").status)

            threads = [threading.Thread(target=take) for _ in range(app._COMING)]
            for thread in threads:
                thread.start()
            while len(begun) < app._COMING:
                time.sleep(0.02)
            for answer in (client.ask("POST", "/example"), client.send(b"RIFF")):
                assert answer.status == 503
                assert "too many" in client.error(answer)
            assert len(begun) == app._COMING
            free.set()
            for thread in threads:
                thread.join()
            # More than one browser may have at once are refused, and leave nothing.
            assert set(answers) <= {202, 429}
            assert len(files_below(page.sessions.folder)) >= sessions.RECORDINGS
            assert client.ask("DELETE", "/recordings").status == 204
            assert client.ask("POST", "/example").status == 202

    def test_given_up_in_the_middle(self, gate):
        with serving({"gate": gate}) as page:
            client = Client(page.port)
            key = json.loads(client.send(encoded(np.full(800, 0.1))).body)["key"]
            while not gate.most:
                time.sleep(0.02)
            client.ask("DELETE", f"/recordings/{key}")
            gate.free.set()
            for _ in range(100):
                if not (page.sessions.folder / key).exists():
                    break
                time.sleep(0.05)
            assert not (page.sessions.folder / key).exists()


CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium, which notes every request that it makes."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    folder = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--autoplay-policy=no-user-gesture-required", "--hide-scrollbars",
        "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
        f"--user-data-dir={folder / 'profile'}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(folder / "downloads")}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=DRIVER)
    )
    driver.set_script_timeout(60)
    driver.downloads = folder / "downloads"
    yield driver
    driver.quit()


def show(browser, width, scheme):
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )


def wait_for(browser, selector, count=1):
    from selenium.webdriver.support.wait import WebDriverWait

    def found(browser):
        elements = browser.find_elements("css selector", selector)
        return elements if len(elements) >= count else None

    return WebDriverWait(browser, 90, 0.1).until(found)


def tab_to(browser, words):
    """Presses the tabulator until the element of that name has the focus."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    for _ in range(60):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        name = browser.execute_script(
            "const e = document.activeElement;"
            "return e === document.body ? '' :"
            " [e.id, e.ariaLabel, e.innerText, e.labels?.[0]?.innerText].join('|')"
        )
        if words in name:
            # What has the focus can be seen to have it.
            assert browser.execute_script(
                "const e = document.activeElement, s = (e) => getComputedStyle(e).outlineStyle;"
                "return s(e) !== 'none' || s(e.parentElement) !== 'none' || e.tagName === 'AUDIO'"
            )
            return browser.switch_to.active_element
    raise AssertionError(f"{words} is not reached")


def click(browser, selector):
    """Clicks all of them, wherever the page is scrolled to."""
    browser.execute_script(
        "for (const e of document.querySelectorAll(arguments[0])) e.click()", selector
    )


def settle(browser):
    """Waits until players load nothing, which removing their files would break off."""
    for _ in range(200):
        if browser.execute_script(
            "return [...document.querySelectorAll('audio')]"
            ".every((e) => e.readyState > 0 && e.networkState !== e.NETWORK_LOADING)"
        ):
            return
        time.sleep(0.05)


def read_when_there(path):
    for _ in range(200):
        if path.exists():
            return path.read_bytes()
        time.sleep(0.05)
    raise AssertionError(f"{path} was not downloaded")


class TestBrowser:
    """In order: each test goes on where the one before has left the page."""

    def test_by_keyboard_alone(self, browser, page, bands, speechlike, tmp_path):
        from selenium.webdriver.common.keys import Keys

        path = tmp_path / "a <b>talk.wav"
        path.write_bytes(encoded(np.stack([speechlike(40000, s, 0.1) for s in (1, 2)], 1), 16000))
        show(browser, 1280, "light")
        browser.get(f"http://127.0.0.1:{page.port}/")
        # What was seen while it went: the texts of the steps.
        browser.execute_script(
            "window.steps = new Set(); new MutationObserver(() => {"
            " for (const e of document.querySelectorAll('.step')) steps.add(e.textContent);"
            "}).observe(document.getElementById('results'), {childList: true, subtree: true});"
        )
        assert tab_to(browser, "Model").tag_name == "select"
        # The dialogue that Enter opens is the system's; the driver fills it in.
        tab_to(browser, "Choose a file").send_keys(str(path))
        wait_for(browser, "article audio", 3)
        steps = browser.execute_script("return [...steps]")
        assert "sending" in steps
        assert any(
            step.startswith(("waiting", "reading", "separating", "drawing")) for step in steps
        ), steps
        assert browser.find_element("css selector", "article h2").text.startswith(path.name)
        tab_to(browser, "Play voice 1").send_keys(Keys.SPACE)
        playing = "return document.querySelectorAll('audio')[1].currentTime"
        for _ in range(200):
            if browser.execute_script(playing) > 0.1:
                break
            time.sleep(0.05)
        assert browser.execute_script(playing) > 0.1
        place = browser.execute_script("return document.querySelectorAll('.head')[1].style.left")
        assert float(place.rstrip("%")) > 0
        job = jobs.Job(path, tmp_path / "out" / path.stem)
        for voice in file_separation.separate_file(job, bands).files:
            tab_to(browser, voice.name).send_keys(Keys.ENTER)
            # Browsers put another character for those that no file's name may have.
            found = browser.downloads / re.sub("[<>]", "_", voice.name)
            assert read_when_there(found) == voice.read_bytes()
        # The recording from where a turn begins.
        tab_to(browser, "to play one by one").send_keys(Keys.ENTER)
        turn = tab_to(browser, "voice 2")
        turn.send_keys(Keys.ENTER)
        start = float(turn.get_attribute("data-start"))
        heard = "const a = document.querySelector('audio'); return a.paused ? -1 : a.currentTime"
        for _ in range(200):
            if browser.execute_script(heard) >= start:
                break
            time.sleep(0.05)
        assert browser.execute_script(heard) >= start
        for ending in ("rttm", "json"):
            tab_to(browser, f"_voices.{ending}").send_keys(Keys.ENTER)
            found = browser.downloads / f"a _b_talk_voices.{ending}"
            assert b"talk" in read_when_there(found)

    def test_from_the_microphone(self, browser, page):
        """The browser's own stand-in for a microphone beeps."""
        from selenium.webdriver.common.keys import Keys

        browser.execute_script("document.getElementById('model').focus()")
        tab_to(browser, "Record with the microphone").send_keys(Keys.ENTER)
        # The focus goes where it is needed next, and the level moves.
        stop = wait_for(browser, "#stop:focus")[0]
        level = "return document.getElementById('level').value"
        for _ in range(100):
            if browser.execute_script(level) > -50:
                break
            time.sleep(0.05)
        assert browser.execute_script(level) > -50
        time.sleep(1)
        stop.send_keys(Keys.ENTER)
        wait_for(browser, "article audio", 6)
        (title, _) = (e.text for e in browser.find_elements("css selector", "article h2"))
        assert title.startswith("microphone 1.")
        seconds = float(re.search(r"([\d.]+)\s+s ·", title)[1])
        assert 0.5 < seconds < LIMIT_SECONDS
        # Given back, and nothing of it is kept when it is removed.
        assert browser.execute_script("return document.activeElement.id") == "record"
        settle(browser)
        click(browser, "article:first-child .remove")
        tab_to(browser, "Record with the microphone").send_keys(Keys.ENTER)
        wait_for(browser, "#stop:focus")
        tab_to(browser, "Discard").send_keys(Keys.ENTER)
        wait_for(browser, "#record:focus")
        assert len(browser.find_elements("css selector", "article")) == 1

    def test_a_microphone_that_may_not_be_used(self, browser):
        browser.execute_script(
            "window.real = navigator.mediaDevices.getUserMedia;"
            "navigator.mediaDevices.getUserMedia ="
            " () => Promise.reject(new DOMException('', 'NotAllowedError'))"
        )
        click(browser, "#record")
        problem = wait_for(browser, "#record-problem:not([hidden])")[0]
        assert "not allowed to use the microphone" in problem.text
        browser.refresh()
        assert not browser.find_element("id", "record-problem").is_displayed()
        wait_for(browser, "article audio", 3)

    def test_the_example_beside_it(self, browser):
        from selenium.webdriver.common.keys import Keys

        browser.execute_script("document.getElementById('model').focus()")
        tab_to(browser, "Take the example").send_keys(Keys.ENTER)
        wait_for(browser, "article audio", 6)
        names = [e.text for e in browser.find_elements("css selector", "article h2")]
        assert names[0].startswith("example.wav")
        # Loaded again, the page shows the same.
        browser.refresh()
        wait_for(browser, "article audio", 6)

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [1280, 390])
    def test_legible(self, browser, width, scheme):
        show(browser, width, scheme)
        assert browser.execute_script("return document.documentElement.scrollWidth") == width
        drawn = browser.execute_async_script(
            "const done = arguments[0]; const images = [...document.images];"
            "Promise.all(images.map((i) => i.decode())).then(() => done(images.map("
            "(i) => Math.min(i.naturalWidth, i.naturalHeight, i.clientWidth, i.clientHeight))))"
        )
        assert len(drawn) == 12
        assert min(drawn) > 90
        sizes = browser.execute_script(
            "return [...document.querySelectorAll('p, a, small, span:not(.hidden), label, code')]"
            ".filter((e) => e.innerText).map((e) => parseFloat(getComputedStyle(e).fontSize))"
        )
        assert min(sizes) >= 11
        # Large enough for a thumb.
        assert (
            min(
                browser.execute_script(
                    "return [...document.querySelectorAll('.button, select, .turn')]"
                    ".filter((e) => e.checkVisibility()).map((e) => e.clientHeight)"
                )
            )
            >= 40
        )
        # Web Content Accessibility Guidelines: 4.5 for text, of what is seen, on its ground.
        assert min(browser.execute_script(CONTRAST)) > 4.5
        folder = os.environ.get("SCREENSHOTS")
        if folder:
            browser.save_screenshot(os.path.join(folder, f"serve_{width}_{scheme}.png"))

    def test_refusals_are_shown(self, browser, page, tmp_path):
        browser.get(f"http://127.0.0.1:{page.port}/")
        (tmp_path / "<b>no.wav").write_bytes(b"dear diary")
        (tmp_path / "large.wav").write_bytes(bytes(LIMIT_BYTES + 1))
        for name in ("<b>no.wav", "large.wav"):
            browser.find_element("id", "file").send_keys(str(tmp_path / name))
        texts = [e.text for e in wait_for(browser, "article p.problem", 2)]
        assert "larger than 0.4 MB" in texts[0]
        assert "not audio" in texts[1]
        click(browser, ".task button")
        assert not browser.find_elements("css selector", ".task")

    def test_an_answer_that_stays_away_is_asked_for_again(self, browser):
        # Once in a while a network fails: the page goes on when it is back.
        browser.execute_script(
            "window.steps = new Set(); new MutationObserver(() => {"
            " for (const e of document.querySelectorAll('.step')) steps.add(e.textContent);"
            "}).observe(document.getElementById('results'), {childList: true, subtree: true});"
            "const real = window.fetch; let bad = 3;"
            "window.fetch = (address, options) => address === 'recordings' && bad-- > 0"
            " ? Promise.reject(new TypeError('gone')) : real(address, options);"
        )
        settle(browser)
        click(browser, "article .remove")
        click(browser, "#example")
        wait_for(browser, "article audio", 3)
        steps = browser.execute_script("return [...steps]")
        assert "the page's server does not answer; trying again" in steps
        assert "the page's server has ended" not in steps

    def test_removed(self, browser, page):
        settle(browser)
        click(browser, "article:first-child .remove")
        click(browser, "#remove-all")
        session = page.sessions.find(browser.get_cookie("voices-apart")["value"])
        for _ in range(200):
            if not session.recordings and not browser.find_elements("css selector", "article"):
                break
            time.sleep(0.05)
        assert session.recordings == {}
        assert not browser.find_elements("css selector", "article")

    def test_nothing_was_asked_of_elsewhere_and_nothing_complained(self, browser, page):
        asked = [
            event["params"]["request"]["url"]
            for event in (
                json.loads(e["message"])["message"] for e in browser.get_log("performance")
            )
            if event["method"] == "Network.requestWillBeSent"
            # The browser's own first page is chrome: and data:.
            and re.match("https?:|wss?:|ftp:", event["params"]["request"]["url"])
        ]
        assert len(asked) > 20
        assert {urllib.parse.urlsplit(url).netloc for url in asked} == {f"127.0.0.1:{page.port}"}
        # But for the recording that was refused, which every browser notes.
        complaints = [e["message"] for e in browser.get_log("browser")]
        assert [c for c in complaints if "status of 422" not in c] == []


CONTRAST = """
const parse = (c) => c.match(/[\\d.]+/g).map(Number);
const light = (c) => { const [r, g, b] = parse(c).map((v) => { v /= 255;
  return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ground = (e) => { for (; e; e = e.parentElement) {
  const c = getComputedStyle(e).backgroundColor; if (parse(c)[3] !== 0) return c; } };
const words = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
return [...document.body.querySelectorAll("*:not(.scale span):not(option):not(script)")]
  .filter((e) => words(e) && e.checkVisibility())
  .map((e) => [light(getComputedStyle(e).color), light(ground(e))].sort((p, q) => q - p))
  .map(([x, y]) => (x + 0.05) / (y + 0.05));
"""


class TestModels:
    def test_those_asked_for_stand_first(self, saved, tmp_path):
        twin = tmp_path / saved.saved_model.name
        shutil.copytree(saved.saved_model, twin)
        found = model_catalog.sources([str(saved.saved_model), str(twin), str(saved.keras_file)])
        models = model_catalog.Models(found)
        assert list(models.titles)[:3] == ["exported", "exported (2)", "mine.keras"]
        assert models.default == "exported"
        assert models.titles["exported"] == "exported · lstm, 2 voices, 8 kHz"
        assert models.need_keras
        assert models.load("mine.keras") is models.load("mine.keras")
        with pytest.raises(errors.UserError, match="no model"):
            models.load("../exported")

    def test_mistakes_show_at_once(self, tmp_path):
        with pytest.raises(errors.UserError, match="no such model"):
            model_catalog.Models(model_catalog.sources([str(tmp_path / "absent")]))


def started(*arguments, **env):
    """The command, when it answers: the process and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "export.serve", "--port=0", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **env},
    )  # fmt: skip
    line = process.stdout.readline()
    assert "is open" in line, process.stderr.read()
    return process, line.split()[0]


class TestCommand:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_and_leaves_nothing(self, saved, tmp_path, number):
        process, address = started(f"--model={saved.saved_model}", TMPDIR=str(tmp_path))
        client = Client(urllib.parse.urlsplit(address).port)
        assert client.ask("POST", "/example").status == 202
        assert list(tmp_path.iterdir())
        # While the model is being loaded, or works.
        process.send_signal(number)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
        assert [p for p in tmp_path.iterdir() if p.name.startswith("voices-apart")] == []

    def test_a_signal_that_python_drops_ends_it_too(self, bands):
        """It came while an object was finalised, before the server listened to signals."""
        page = app.Page(model_catalog.Models({"bands": bands}), work.Limits(1, 1), keep_seconds=60)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = app.server(app.create(page, {"localhost"}), lambda: True)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            thread.join(30)
            assert not thread.is_alive()

    def test_answers_this_machine_alone(self, saved):
        process, address = started(f"--model={saved.saved_model}")
        try:
            assert urllib.parse.urlsplit(address).hostname == "127.0.0.1"
            port = urllib.parse.urlsplit(address).port
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port), timeout=5)
        finally:
            process.terminate()
            process.communicate(timeout=30)

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["--model=absent"], 1, "no such model: absent"),
            (["--port=99999"], 2, "port"),
            (["--host=192.0.2.1", "--model=M"], 1, "choose another --port or --host"),
            (["x.wav"], 2, "unexpected argument"),
        ],
    )
    def test_mistakes(self, run_command, saved, arguments, code, words):
        arguments = [a.replace("=M", f"={saved.saved_model}") for a in arguments]
        done = run_command("export.serve", *arguments)
        assert done.returncode == code
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1

    def test_without_its_libraries(self, run_command, tmp_path):
        (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError('', name='uvicorn')")
        done = run_command("export.serve", env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
        assert done.returncode == 1
        assert done.stderr == (
            "error: the page needs Starlette and uvicorn: pip install 'voices-apart[serve]'\n"
        )
