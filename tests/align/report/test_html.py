"""`report.html` as a person uses it: opened from disk in a real headless Chromium, clicked, searched, sorted."""

import json
import os
import shutil
from urllib.parse import quote

import numpy as np
import pytest

from align.report import html
from align.report.details import error_map

EVIL = "<script>window.ran = 1; alert(1)</script>"
WORSE = '</script><img src="x" onerror="window.ran = 1"><!--'
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NORM = "activation/transformers.0.blocks.0.norm1/out"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright; scripts/setup.sh installs it")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium on this machine; on Debian: apt-get install chromium")
    with playwright.sync_playwright() as started:
        # As root Chromium does not start in its sandbox.
        launched = started.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield launched
        launched.close()


class Watched:
    """A page of its own that must neither ask the network for anything nor complain."""

    def __init__(self, browser, **options):
        self.context = browser.new_context(**options)
        self.requests, self.errors = [], []
        self.context.route("**/*", self._route)
        self.page = self.context.new_page()
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", self._dialog)

    def _route(self, route):
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            self.requests.append(route.request.url)
            route.abort()

    def _dialog(self, dialog):
        self.errors.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def open(self, path, address=""):
        self.page.goto(f"{path.as_uri()}{address}")
        self.page.wait_for_selector("html[data-ready]")
        return self.page

    def until(self, condition):
        """Wait until an expression holds; the page's own policy forbids playwright to wait for it."""
        for _ in range(200):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never came true: {condition}")

    def texts(self, selector):
        return self.page.locator(selector).all_inner_texts()


@pytest.fixture
def watched(browser):
    watch = Watched(browser, viewport={"width": 1280, "height": 900})
    yield watch
    watch.context.close()
    assert (watch.requests, watch.errors) == ([], [])


@pytest.fixture(scope="module")
def misaligned(browser, align, root, tmp_path_factory):
    """The folder of a run of a port with two bugs: how images are resized, and one epsilon.

    It asks for the browser first: without one nothing is run.
    """
    folder = tmp_path_factory.mktemp("misaligned")
    for package in ("torch_ref", "paddle_impl"):
        shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file, right, wrong in (
        ("data.py", 'Resize(resize, interpolation="bicubic")', 'Resize(resize, interpolation="bilinear")'),
        ("pit.py", "epsilon=1e-6", "epsilon=1e-5"),
    ):
        text = (folder / "paddle_impl" / file).read_text()
        assert right in text
        (folder / "paddle_impl" / file).write_text(text.replace(right, wrong))
    arguments = ("run", "data", "forward", "--case", "pit_probe", "--out", folder / "out")
    result = align(*arguments, cwd=folder)
    assert result.returncode == 1, result.stdout + result.stderr
    return folder / "out"


def test_the_page_says_what_is_wrong_and_where(misaligned, watched):
    page = watched.open(misaligned / "report.html")
    verdict = json.loads((misaligned / "verdict.json").read_text())
    assert page.title() == "pit_probe: misaligned"
    headline = page.inner_text("#headline")
    assert "step data" in headline and f"paddle_impl/data.py:{verdict['first_divergence']['port']['line']}" in headline
    assert page.locator("#steps tbody tr").count() == 2
    assert "paddle 3." in page.inner_text("header") and "coverage" in page.inner_text("header").lower()
    parts = page.inner_text("#divergences")
    assert 'interpolation="bilinear"' in parts and "epsilon=1e-5" in parts and "LayerNorm epsilon" in parts
    assert page.locator("#divergences .line.blamed").count() >= 4
    assert watched.texts("#depth h3") == ["forward pass, step forward"]
    assert page.locator("#depth canvas").count() == 1
    for figure in ("reference", "port", "difference"):
        image = page.locator(f"#pictures img[alt^='{figure}']").first
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 50


def test_a_step_leads_to_its_rows(misaligned, watched):
    page = watched.open(misaligned / "report.html")
    page.click("#steps a:text-is('forward')")
    watched.until("document.querySelector('#step').value === 'forward'")
    assert page.url.endswith("#step=forward")
    assert set(watched.texts("#body td:first-child")) == {"forward"}
    assert page.evaluate("document.getElementById('rows').getBoundingClientRect().top") < 900


def test_a_deep_link_opens_its_row_with_its_error_map(misaligned, watched):
    page = watched.open(misaligned / "report.html", f"#row=forward/{NORM}")
    opened = page.locator("#body tr.more")
    assert opened.count() == 1 and opened.is_visible()
    assert page.inner_text("#body tr[aria-selected] td.name-cell") == NORM
    assert "(4, 90, 16)" in opened.inner_text()
    assert opened.locator("canvas.heatmap").count() == 2 and opened.locator("svg.histogram rect").count() == 40
    drawn = "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size"
    assert opened.locator("canvas.heatmap").first.evaluate(drawn) > 10
    top = page.locator("#body tr[aria-selected]").evaluate("row => row.getBoundingClientRect().top")
    assert 0 <= top < 450


def test_the_module_tree_folds_and_leads_to_a_modules_rows(misaligned, watched):
    page = watched.open(misaligned / "report.html")
    page.select_option("#tree-step", "forward")
    own = page.locator("#tree .branch:has(> p > .own)")
    assert "norm1" in own.first.inner_text()
    assert page.locator("#tree a[title='patch_embed.conv'] ~ small:not(.red)").count() == 1
    assert page.locator("#tree a[title='transformers.0.blocks.0.norm1'] ~ small.red").count() == 1
    page.locator("#tree details:has(> summary > a[title='transformers']) > summary .heat").click()
    assert not page.locator("#tree a[title='transformers.0.blocks.0.norm1']").is_visible()
    page.click("#tree a[title='pools.0']")
    watched.until("!document.querySelector('#module').hidden")
    names = watched.texts("#body td.name-cell")
    assert names and all("pools.0" in name for name in names)


def test_search_sort_and_keyboard(misaligned, watched):
    page = watched.open(misaligned / "report.html")
    page.keyboard.press("/")
    page.keyboard.type("forward NORM1/out")
    watched.until("document.querySelectorAll('#body tr.row').length === 4")
    assert all(name.endswith("norm1/out") for name in watched.texts("#body td.name-cell"))
    page.click("th button:text-is('row')")
    names = watched.texts("#body td.name-cell")
    assert names == sorted(names)
    page.click("th button:text-is('row')")
    assert watched.texts("#body td.name-cell") == names[::-1]
    for key in "jjjk":
        page.keyboard.press(key)
    assert page.inner_text("#body tr[aria-selected] td.name-cell") == names[::-1][1]
    page.keyboard.press("Escape")  # leaves the button; nothing is open yet
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Enter")
    page.wait_for_selector("#body tr.more")
    assert page.url.endswith(f"#row=forward/{names[::-1][1]}")
    page.keyboard.press("Escape")
    assert page.locator("#body tr.more").count() == 0 and "#" not in page.url


def test_dark_mode_follows_the_system_and_can_be_chosen(misaligned, browser):
    watch = Watched(browser, color_scheme="dark")
    page = watch.open(misaligned / "report.html")
    brightness = (
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    )
    assert page.evaluate(brightness) < 150
    page.click("#theme")
    assert page.evaluate(brightness) > 600
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate(brightness) > 600, "the choice is remembered"
    watch.context.close()
    assert (watch.requests, watch.errors) == ([], [])


def test_nothing_is_wider_than_a_phone(misaligned, browser):
    watch = Watched(browser, viewport={"width": 375, "height": 740})
    page = watch.open(misaligned / "report.html", f"#row=forward/{NORM}")
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    assert page.locator("#body tr.more").is_visible()
    watch.context.close()
    assert (watch.requests, watch.errors) == ([], [])


def row(name, **changed):
    return {
        "step": "forward", "name": name, "kind": "activation", "verdict": "misaligned",
        "reason": f"meaning 1e+10x noise; 5 of 5 elements differ, most at (1, 2): 1.2345678 in the port of {name}",
        "shape": [4, 197, 192], "dtype": "float32", "max_abs": 1.2345678e-6, "index": [1, 2, 3], "mean_abs": 1.2345e-7,
        "rel": 1.2345e-7, "cosine": 0.99999999, "ulp": 123, "meaning": {"error": 1.5e-7, "limit": 1e-13, "ratio": 1e8},
        "precision": {"error": 1.234e-6, "limit": 1.234e-4, "ratio": 0.6}, "noise": 1.234e-6, "min_tolerance": 1.2e-6,
        "matched_by": "name", "waived": None,
    } | changed  # fmt: skip


def verdict_of(rows, **changed):
    worst = {key: rows[0][key] for key in ("name", "kind", "max_abs", "rel", "meaning", "precision")}
    return {
        "schema": "align/1", "case": "a_case", "verdict": "misaligned", "blamed_step": "forward",
        "steps": [{"step": "forward", "verdict": "misaligned", "rows": len(rows), "seconds": 1.0, "worst": worst}],
        "coverage": {"activation": {"compared": len(rows), "total": len(rows), "waived": 0, "insensitive": 0}},
        "blind": [], "complaints": [], "first_divergence": None, "divergences": [], "environment": {},
    } | changed  # fmt: skip


def test_names_are_text_wherever_they_stand(tmp_path, watched):
    """Of modules, rows, files, source, complaints and versions: what would be markup is shown, and does nothing."""
    rows = [row(f"activation/{EVIL}.a/out"), row(f"activation/{WORSE}.a/out", reason=EVIL, waived=WORSE)]
    rows += [row(f"activation/b{i}/out", step="forward") for i in range(3)]
    place = {"file": f"/there/{EVIL}.py", "line": 3, "end_line": 3, "code": f"x = {WORSE!r}  # {EVIL}", "built": None}
    found = {
        "step": "forward", "module": f"{EVIL}.a", "what": WORSE, "error": 0.5, "port": place, "reference": place,
        "cause": {"id": "x", "text": EVIL, "explained": 1.0, "change": WORSE},
    }  # fmt: skip
    side = {"versions": {EVIL: WORSE}, "devices": {"used": WORSE, "gpus": [EVIL]}, "platform": EVIL, "python": WORSE}
    verdict = verdict_of(
        rows, case=WORSE, first_divergence=found, divergences=[found], complaints=[EVIL], blind=[WORSE],
        coverage={EVIL: {"compared": 1, "total": 2, "waived": 0, "insensitive": 0}},
        environment={EVIL: side, "paddle": side},
    )  # fmt: skip
    (tmp_path / "report.html").write_text(html.document(verdict, rows))
    page = watched.open(tmp_path / "report.html", f"#row=forward/{quote(rows[1]['name'])}")
    assert page.locator("#body tr.more").count() == 1
    names = watched.texts("#body td.name-cell")
    assert {rows[0]["name"], rows[1]["name"]} <= set(names)
    assert "<script>window" in page.inner_text("#tree") and WORSE in page.inner_text("#divergences")
    page.locator("#body tr.row").first.click()
    page.wait_for_selector("#body tr.more")
    assert page.evaluate("window.ran") is None
    assert page.evaluate("document.scripts.length") == 3  # the data, uPlot, the page's own
    assert page.locator("img").count() == 0
    policy = page.get_attribute("meta[http-equiv]", "content")
    assert "default-src 'none'" in policy and "unsafe-inline' 'sha" not in policy


def test_ten_thousand_red_rows(tmp_path, watched):
    rows = [
        row(f"activation/transformers.{i // 100}.blocks.{i % 100}.attn.projection.linear/out") for i in range(10_000)
    ]
    noise = np.random.default_rng(0).normal(size=(4, 64, 64))
    error = error_map(noise, np.zeros_like(noise))
    details = {"rows": {i: {"dtype": "float64", **error} for i in range(200)}, "training": [], "pictures": []}
    path = tmp_path / "report.html"
    path.write_text(html.document(verdict_of(rows), rows, details))
    assert path.stat().st_size <= 5_000_000
    page = watched.open(path)
    assert page.inner_text("#count") == "10000 red of 10000"
    assert page.locator("#body tr.row").count() == 100
    page.click("#next")
    assert page.inner_text("#page") == "101–200 of 10000"
    page.goto(f"{path.as_uri()}#row=forward/{rows[9_999]['name']}")
    page.wait_for_selector("#body tr.more")
    assert page.inner_text("#body tr[aria-selected] td.name-cell") == rows[9_999]["name"]


def test_what_does_not_fit_is_left_out_from_the_least_bad_on():
    rows = [row(f"r{i}", meaning={"error": i + 1.0, "limit": 1.0, "ratio": i + 1.0}) for i in range(10)]
    heavy = {"rows": {i: {"cells": "x" * 1_000_000} for i in range(10)}, "training": [], "pictures": []}
    page = html.document(verdict_of(rows), rows, heavy)
    assert len(page.encode()) <= 5_000_000
    packed = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert sorted(map(int, packed["details"])) == [6, 7, 8, 9] and packed["left_out"] == 6


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"verdict": "aligned", "blamed_step": None},
            "The port computes what the reference computes: 1 tensors of 1 step",
        ),
        ({"verdict": "empty"}, "Nothing was compared"),
        ({"verdict": "vacuous", "blind": ["parameter w"]}, "no row could have shown a wrong parameter w"),
        ({"blamed_step": None, "complaints": ["waiver 1 expired"]}, "The gate fails: waiver 1 expired"),
        ({}, "first differs in step forward; 1 of"),
    ],
)
def test_the_verdict_in_one_sentence(changed, told):
    rows = [row("a")]
    assert told in html.headline(verdict_of(rows, **changed), rows)


def test_the_watch_sees_requests_and_errors(tmp_path, browser):
    """The checks above can fail."""
    (tmp_path / "bad.html").write_text(
        "<html data-ready><script>fetch('https://example.org/x').catch(() => 0); console.error('seen')</script>"
    )
    watch = Watched(browser)
    watch.open(tmp_path / "bad.html")
    watch.page.wait_for_timeout(200)
    assert watch.requests == ["https://example.org/x"] and "seen" in watch.errors
    watch.context.close()
