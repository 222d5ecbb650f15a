"""The page: in a real browser, and as text."""

import html.parser
import itertools
import json
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from export import evaluate
from export.evaluation import charts, report
from export.separation import pictures

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
LOG = (
    "epoch,loss,mask_accuracy,val_loss,val_mask_accuracy,val_si_sdr_improvement,seconds\n"
    + "".join(
        f"{e},{1 / e},{0.6 + 0.01 * e},{1.2 / e},{0.58 + 0.01 * e},{e / 2},3.5\n"
        for e in (1, 2, 3, 4)
    )
)


@pytest.fixture(scope="module")
def page(saved, make_dataset, tmp_path_factory):
    """The path of a page with a model that brought its log along."""
    folder = tmp_path_factory.mktemp("page")
    make_dataset(folder / "two tones", {"test": 7})
    shutil.copytree(saved.run, folder / "<run>")
    (folder / "<run>" / "log.csv").write_text(LOG)
    evaluate.evaluate(
        [str(folder / "<run>")], [str(folder / "two tones")], str(folder / "report"), workers=1,
        metric_names=["si_sdr", "mask_accuracy"],
    )  # fmt: skip
    return folder / "report" / "report.html"


class _Reader(html.parser.HTMLParser):
    """Collects what the tests ask of the page."""

    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


@pytest.fixture(scope="module")
def tags(page):
    reader = _Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader.tags


class TestText:
    def test_loads_nothing_from_elsewhere(self, tags, page):
        for tag, attributes in tags:
            for name in ("src", "href", "poster", "data", "srcset"):
                if name in attributes:
                    assert attributes[name].startswith(("data:", "#")), (tag, name)
        text = page.read_text(encoding="utf-8")
        assert "@import" not in text
        assert not re.search(r"url\((?!data:)", text)
        assert "default-src 'none'" in text

    def test_every_picture_and_player_has_words(self, tags):
        for tag, attributes in tags:
            if tag == "img":
                assert len(attributes["alt"]) > 20
            if tag == "audio":
                assert attributes["aria-label"].startswith("Play ")
            if tag == "svg" and "aria-hidden" not in attributes:
                assert attributes["role"] == "img"
                assert len(attributes["aria-label"]) > 20

    def test_three_examples_with_mixture_voices_and_estimates(self, tags):
        names = [attributes.get("class") for tag, attributes in tags if tag == "article"]
        assert names == ["example"] * 3
        assert sum(tag == "audio" for tag, _ in tags) == 3 * 5
        assert sum(tag == "img" for tag, _ in tags) == 3 * 7  # and two of masks

    def test_headings_are_nested_and_ids_are_unique(self, tags):
        levels = [int(tag[1]) for tag, _ in tags if re.fullmatch(r"h\d", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
        ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert all(not re.search(r"\s", i) for i in ids)
        for _, attributes in tags:
            for name in ("aria-labelledby",):
                assert attributes.get(name, ids[0]) in ids

    def test_names_cannot_inject(self, page):
        text = page.read_text(encoding="utf-8")
        assert "<run>" not in text
        assert "&lt;run&gt;" in text

    def test_figures_are_those_of_the_summary(self, page):
        summary = json.loads((page.parent / "results.json").read_text())
        mean = summary["datasets"][0]["systems"]["<run>"]["si_sdr_improvement"]["all"]["mean"]
        text = page.read_text(encoding="utf-8")
        assert f'<p class="big">{mean:.1f}<small> dB'.replace("-", "−") in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium, as it runs in CI."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--autoplay-policy=no-user-gesture-required", "--hide-scrollbars",
        f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def show(browser, page, width, scheme):
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get(page.as_uri())


CONTRAST = """
const parse = (c) => c.match(/[\\d.]+/g).map(Number);
const light = (c) => { const [r, g, b] = parse(c).map((v) => { v /= 255;
  return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const style = getComputedStyle(document.documentElement);
const probe = document.createElement("i"); document.body.append(probe);
const colour = (name) => {
  probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
const ratio = (a, b) => { const [x, y] = [light(colour(a)), light(colour(b))].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05); };
return ["--ink", "--soft", "--accent", "--voice1", "--voice2", "--voice3", "--voice4",
        "--worst"]
  .flatMap((name) => [ratio(name, "--paper"), ratio(name, "--card")]);
"""


class TestBrowser:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [1280, 390])
    def test_draws_everything_without_a_complaint(self, browser, page, width, scheme):
        show(browser, page, width, scheme)
        widths = browser.execute_script(
            "return [...document.images].map((i) => i.complete ? i.naturalWidth : 0)"
        )
        assert len(widths) == 21
        assert min(widths) > 50
        boxes = browser.execute_script(
            "return [...document.querySelectorAll('svg[role=img] path, svg[role=img] circle')]"
            ".map((e) => e.getBBox()).map((b) => b.width + b.height)"
        )
        assert len(boxes) > 50
        # No part of the page is wider than the window: nothing but tables scrolls sideways.
        assert browser.execute_script("return document.documentElement.scrollWidth") == width
        if width > 600:
            drawn = browser.execute_script(
                "return [...document.querySelectorAll('svg[role=img]')]"
                ".map((e) => e.getBoundingClientRect()).map((b) => Math.min(b.width, b.height))"
            )
            assert min(drawn) > 20
        # Web Content Accessibility Guidelines: 4.5 for text.
        assert min(browser.execute_script(CONTRAST)) > 4.5
        assert browser.get_log("browser") == []
        folder = os.environ.get("SCREENSHOTS")
        if folder:
            browser.save_screenshot(os.path.join(folder, f"report_{width}_{scheme}.png"))

    def test_a_player_plays_and_another_silences_it(self, browser, page):
        show(browser, page, 1280, "light")
        browser.set_script_timeout(30)
        played = browser.execute_async_script(
            """
            const done = arguments[arguments.length - 1];
            const [first, second] = document.querySelectorAll("audio");
            const head = first.closest(".tile").querySelector(".head");
            const until = (audio) => new Promise((go) => {
              audio.addEventListener("timeupdate", () => {
                if (audio.currentTime > 0.1) go(audio.currentTime);
              });
            });
            const play = (audio) => audio.play().then(() => until(audio));
            play(first).then((one) => {
              const place = head.style.left;
              return play(second).then((two) =>
                done({one, two, place, paused: first.paused, problem: null}));
            }).catch((problem) => done({problem: String(problem)}));
            """
        )
        assert played["problem"] is None
        assert played["one"] > 0.1
        assert played["two"] > 0.1
        assert float(played["place"].rstrip("%")) > 2
        assert played["paused"]
        durations = browser.execute_script(
            "return [...document.querySelectorAll('audio')].map((a) => [a.error, a.duration])"
        )
        assert all(error is None for error, _ in durations)

    def test_keyboard_reaches_links_tables_and_players(self, browser, page):
        show(browser, page, 1280, "light")
        keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
        reached = []
        for _ in range(16):
            browser.switch_to.active_element.send_keys(keys.TAB)
            reached.append(
                browser.execute_script(
                    "const e = document.activeElement; return e.className || e.tagName"
                )
            )
        assert reached[0] == "skip"
        assert reached.count("A") == 5
        assert "scroll" in reached
        assert "AUDIO" in reached


class TestCharts:
    def test_ticks_are_round_and_within(self):
        assert charts.ticks(-0.3, 10.2) == [0, 2.5, 5, 7.5, 10]
        assert charts.ticks(1, 3, whole=True) == [1, 2, 3]
        assert charts.ticks(0, 1e-3)[-1] == pytest.approx(1e-3)

    def test_points_lie_where_their_values_are(self):
        svg = charts.scatter(np.array([0.0, 10.0]), np.array([0.0, 5.0]), "x", (0, 5), "about")
        circles = ElementTree.fromstring(str(svg)).findall("circle")
        first, second = ((float(c.get("cx")), float(c.get("cy"))) for c in circles)
        assert first[0] < second[0]
        assert first[1] > second[1]

    def test_says_what_it_shows(self):
        values = {"female-female": np.array([1.0, 2.0, 9.0, np.nan])}
        svg = ElementTree.fromstring(str(charts.distribution(values, "dB", (0, 10), "About <it>")))
        assert svg.get("aria-label") == "About <it>. female-female: median 2.0 of 3."
        assert len(svg.findall("circle")) == 3

    def test_a_log_with_one_epoch_and_a_gap(self):
        svg = charts.curves([1], {"train": [0.5], "valid": [float("nan")]}, "loss")
        assert ElementTree.fromstring(str(svg)).findall("circle")


class TestTrainingLog:
    def test_beside_the_model(self, tmp_path):
        assert report.training_log(str(tmp_path)) == {}
        (tmp_path / "log.csv").write_text("epoch,loss\n1,0.5\n2,\n")
        log = report.training_log(str(tmp_path / "best.keras"))
        assert log["epoch"] == [1, 2]
        assert log["loss"][0] == 0.5
        assert np.isnan(log["loss"][1])

    def test_what_is_no_log_is_passed_over(self, tmp_path):
        (tmp_path / "log.csv").write_bytes(b"\xff\xfe\x00")
        assert report.training_log(str(tmp_path)) == {}


def test_sound_is_what_was_heard():
    import base64
    import io

    import soundfile

    signal = np.random.default_rng(0).uniform(-0.5, 0.5, 1000).astype(np.float32)
    data = base64.b64decode(pictures.sound(signal, 8000).partition(",")[2])
    heard, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == 8000
    np.testing.assert_allclose(heard, signal, atol=1 / 32768)


def test_a_spectrogram_shows_a_tone_at_its_place():
    import base64
    import io

    from PIL import Image

    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 8000).astype(np.float32)
    data = base64.b64decode(pictures.spectrogram(tone, 0.5).partition(",")[2])
    rows = np.asarray(Image.open(io.BytesIO(data)).convert("L"), float).mean(axis=1)
    assert rows.size == 129
    assert 128 - rows.argmax() == 32  # 1000 Hz of 4000 in 128 steps
