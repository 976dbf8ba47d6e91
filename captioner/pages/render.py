"""HTML pages that are one file each: style, script and data are in them, and nothing else runs.

A page is a template of this package with the files of its name beside it: ``report.html`` is shown
with ``base.css`` and ``report.css`` and run by ``base.js`` and ``report.js``. Everything that comes
from outside is text: Jinja2 escapes what templates print, the data are JSON that cannot end its
block, and the page's Content-Security-Policy (W3C, "Content Security Policy Level 3") lets no
script or style run but those two, by their hashes, and lets nothing be asked for from a network.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

PACKAGE = "captioner.pages"
"""Whose templates all pages may use."""

# Images and films: files beside the page (`'self'`, where a server shows it), or made in it.
_MEDIA = "'self' file: data: blob:"


def render_page(
    template: str,
    *,
    data: object = None,
    package: str = PACKAGE,
    asks_server: bool = False,
    **values: Any,
) -> str:
    """A page of its own, to be written as UTF-8 (`captioner.files.writing.replace_file`).

    Args:
        template: a file of the package's ``templates`` that extends ``base.html``.
        data: what the page's script gets from ``page.data``: JSON primitives.
        package: in which the template, its style and its script are.
        asks_server: whether its script may ask the server that it came from.
        values: what the template's own text needs. All of it is escaped.

    Raises:
        jinja2.UndefinedError: the template needs a value that was not given.
        ValueError: the data hold something that JSON has no word for.
    """
    name = template.removesuffix(".html")
    style = _joined(package, "base.css", f"{name}.css")
    script = _joined(package, "base.js", f"{name}.js")
    return (
        _environment(package)
        .get_template(template)
        .render(
            values,
            policy=_policy(style, script, asks_server),
            style=Markup(style),
            script=Markup(script),
            data=Markup(json_for_script(data)),
        )
    )


def json_for_script(data: object) -> str:
    r"""JSON that can stand in a ``<script>`` block: no ``<`` in it could end or open one.

    Raises:
        ValueError: the data hold something that JSON has no word for.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # These only occur inside of strings, where JSON knows them by their numbers as well.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(style: str, script: str, asks_server: bool) -> str:
    connect = ["connect-src 'self'"] if asks_server else []
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            f"img-src {_MEDIA}",
            f"media-src {_MEDIA}",
            *connect,
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


@cache
def _joined(package: str, *names: str) -> str:
    """The text of these files, of the package or of all pages; those not there are left out."""
    folders = [resources.files(each) / "templates" for each in dict.fromkeys((PACKAGE, package))]
    parts = [folder / name for name in names for folder in folders]
    text = "\n".join(part.read_text(encoding="utf-8") for part in parts if part.is_file())
    # Either would end the block; and a browser hashes line feeds.
    assert "</script" not in text and "</style" not in text, names
    return text.replace("\r\n", "\n")


@cache
def _environment(package: str) -> jinja2.Environment:
    loaders = [jinja2.PackageLoader(each) for each in dict.fromkeys((package, PACKAGE))]
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
