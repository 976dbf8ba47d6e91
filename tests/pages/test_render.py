"""Pages: nothing from outside is more than text, and nothing is asked for from outside."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest
from PIL import Image

from captioner.pages import render as pages
from helpers.browser import OpenPage, Watch

ATTACK = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)> & \u2028"


@pytest.fixture
def templates(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A page made for the tests, beside the package's own."""
    text = (
        "{% extends 'base.html' %}{% block title %}{{ title }}{% endblock %}"
        "{% block main %}<p id='said'>{{ said }}</p><img id='photo' src='{{ src }}' alt=''>"
        "{% endblock %}"
    )
    environment = pages._environment.__wrapped__(pages.PACKAGE)
    environment.loader = jinja2.ChoiceLoader(
        [jinja2.DictLoader({"t.html": text}), environment.loader]
    )
    monkeypatch.setattr(pages, "_environment", lambda package: environment)
    yield


def test_what_comes_from_outside_is_text(
    templates: None, open_page: OpenPage, tmp_path: Path
) -> None:
    data = {"name": ATTACK, "number": 1.5, "none": None, "half": "\udcfc"}
    html = pages.render_page("t.html", data=data, title="Ü", said=ATTACK, src="x.png")
    Image.new("RGB", (3, 2)).save(tmp_path / "x.png")
    path = tmp_path / "a b.html"
    path.write_bytes(html.encode("utf-8", "backslashreplace"))
    page = open_page(path)
    assert page.title() == "Ü"
    assert page.locator("#said").text_content() == ATTACK
    assert json.loads(page.evaluate("JSON.stringify(page.data)")) == data
    assert page.evaluate("document.getElementById('photo').naturalWidth") == 3
    assert page.evaluate("document.scripts.length") == 2


def test_nothing_runs_that_was_not_written_here(
    templates: None, open_page: OpenPage, watch: Watch, tmp_path: Path
) -> None:
    html = pages.render_page("t.html", title="t", said="s", src="data:,")
    smuggled = "<script>document.title='owned'</script><p style='color:red' onclick='x()'>"
    path = tmp_path / "t.html"
    path.write_text(html.replace("<p id='said'>", smuggled + "<p id='said'>"))
    page = open_page(path)
    assert page.title() == "t"
    assert page.evaluate("getComputedStyle(document.querySelector('p[onclick]')).color") != (
        "rgb(255, 0, 0)"
    )
    blocked = [line for line in watch.found if "Content Security Policy" in line]
    assert blocked == watch.found and len(blocked) >= 2
    watch.found.clear()


@pytest.mark.parametrize(
    "code",
    [
        "fetch('http://127.0.0.1:9/').catch(() => {})",
        "document.body.append(page.make('img', {src: 'http://127.0.0.1:9/x.png'}))",
        "document.body.append(page.make('iframe', {src: 'data:text/html,x'}))",
    ],
)
def test_nothing_is_asked_for_from_outside(
    templates: None, open_page: OpenPage, watch: Watch, tmp_path: Path, code: str
) -> None:
    path = tmp_path / "t.html"
    path.write_text(pages.render_page("t.html", title="t", said="s", src="data:,"))
    page = open_page(path)
    page.evaluate(code + "; 0")
    end_s = time.monotonic() + 10
    while not any("Content Security Policy" in line for line in watch.found):
        assert time.monotonic() < end_s, watch.found
        page.wait_for_timeout(20)  # Playwright hears of it meanwhile.
    watch.found.clear()


def test_a_value_that_is_missing_is_an_error(templates: None) -> None:
    with pytest.raises(jinja2.UndefinedError, match="said"):
        pages.render_page("t.html", title="t", src="x.png")


def test_json_in_a_script_block() -> None:
    text = pages.json_for_script({"a": "</script><!-- &amp;", "b": [None, True, 0.5, "ü"]})
    assert not re.search("[<>&]", text)
    assert json.loads(text) == {"a": "</script><!-- &amp;", "b": [None, True, 0.5, "ü"]}
    with pytest.raises(ValueError):
        pages.json_for_script(float("nan"))


@pytest.mark.parametrize("system", ["light", "dark"])
def test_light_follows_the_system_and_the_button(
    templates: None, open_page: OpenPage, tmp_path: Path, system: str
) -> None:
    path = tmp_path / "t.html"
    path.write_text(pages.render_page("t.html", title="t", said="s", src="data:,"))
    page = open_page(path, keeps=True, color_scheme=system)
    ground = "getComputedStyle(document.body).backgroundColor"
    colours = {"light": "rgb(246, 246, 244)", "dark": "rgb(22, 24, 27)"}
    other = "dark" if system == "light" else "light"
    button = page.get_by_role("button", name="Dark")
    assert page.evaluate(ground) == colours[system]
    assert button.get_attribute("aria-pressed") == str(system == "dark").lower()
    button.click()
    assert page.evaluate(ground) == colours[other]
    page.reload()
    assert page.evaluate(ground) == colours[other]
    assert button.get_attribute("aria-pressed") == str(other == "dark").lower()
