"""Images of the HTML pages and figures for the documents, made from the example files.

    python benchmarks/screenshots.py                 # all into docs/images
    python benchmarks/screenshots.py report-dark     # only this one

Needs Chromium and Playwright (see CONTRIBUTING.md). A new page gets a function in `SHOTS`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from captioner.cli.entry import main as captioner

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "data" / "examples"
IMAGES = ROOT / "docs" / "images"


def run(*arguments: str | Path) -> None:
    """A command of captioner, which must do its work."""
    assert captioner([str(each) for each in arguments]) == 0, arguments


def open_page(browser: Browser, path: Path | str, width: int, height: int, **options: Any) -> Page:
    """A page, of a file or an address, in a window of this size, with its images loaded."""
    page = browser.new_page(viewport={"width": width, "height": height}, **options)
    page.goto(path if isinstance(path, str) else path.absolute().as_uri(), wait_until="load")
    # Playwright's own way of waiting needs `eval`, which the pages forbid.
    while not page.evaluate("[...document.images].every((each) => each.complete)"):
        time.sleep(0.05)
    return page


def make_report(folder: Path) -> Path:
    """The page of the example photos."""
    page = folder / "report.html"
    if not page.exists():
        run("caption", EXAMPLES, "--output", page, "--quiet")
    return page


def report(browser: Browser, folder: Path, output: Path) -> None:
    page = open_page(browser, make_report(folder), 1240, 800)
    page.screenshot(path=output)


def report_dark(browser: Browser, folder: Path, output: Path) -> None:
    page = open_page(browser, make_report(folder), 1240, 800, color_scheme="dark")
    page.screenshot(path=output)


def report_phone(browser: Browser, folder: Path, output: Path) -> None:
    page = open_page(browser, make_report(folder), 390, 844)
    page.screenshot(path=output)


def report_words(browser: Browser, folder: Path, output: Path) -> None:
    page = open_page(browser, make_report(folder), 1240, 800)
    page.get_by_role("button", name="Details").first.click()
    page.locator(".words").get_by_role("button", name="jacket").click()
    page.screenshot(path=output)


def explain(browser: Browser, folder: Path, output: Path) -> None:
    run("explain", EXAMPLES / "astronaut.jpg", "--output", output, "--overwrite")


def make_videos(folder: Path) -> Path:
    """The pages of the example film, and of others made of the example photos."""
    pages = folder / "tags"
    if not pages.exists():
        sys.path.insert(0, str(ROOT / "data"))
        from make_clip import make_clip

        films = folder / "films"
        films.mkdir()
        shutil.copy(EXAMPLES / "slideshow.mp4", films)
        for name, shots in FILMS.items():
            make_clip(films / f"{name}.mp4", shots)
        (films / "broken download.mp4").write_bytes(b"<html>404")
        arguments = ["tag", str(films), "--output-dir", str(pages), "--format", "html", "--quiet"]
        assert captioner(arguments) == 1  # one is broken
    return pages


FILMS = {
    "coffee with a cat": (("coffee", 90), ("cat", 75)),
    "launch": (("rocket", 150), ("astronaut", 110)),
    "on the stairs": (("stairs", 200),),
    "temple and raccoon": (("temple", 100), ("raccoon", 130), ("temple", 50)),
    "the cameraman": (("cameraman", 120), ("stairs", 60)),
}


def open_video(browser: Browser, folder: Path, width: int, height: int, **options: Any) -> Page:
    """The page of the example film, five seconds after its beginning."""
    page = open_page(browser, make_videos(folder) / "slideshow.html", width, height, **options)
    page.locator("body").press("ArrowRight")
    page.wait_for_timeout(1000)  # the frame is there when it is there
    return page


def video(browser: Browser, folder: Path, output: Path) -> None:
    open_video(browser, folder, 1240, 1080).screenshot(path=output)


def video_dark(browser: Browser, folder: Path, output: Path) -> None:
    open_video(browser, folder, 1240, 1080, color_scheme="dark").screenshot(path=output)


def video_phone(browser: Browser, folder: Path, output: Path) -> None:
    open_video(browser, folder, 390, 844).screenshot(path=output)


def videos(browser: Browser, folder: Path, output: Path) -> None:
    page = open_page(browser, make_videos(folder) / "index.html", 1240, 800)
    page.screenshot(path=output)


def review(browser: Browser, folder: Path, output: Path) -> None:
    captions = folder / "captions.jsonl"
    run("caption", EXAMPLES, "--output", captions, "--tags", "0.1", "--quiet")
    command = [sys.executable, "-m", "captioner", "review", str(captions), "--no-browser"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        address = re.search(r"http://\S+", server.stderr.readline())
        assert address is not None
        page = open_page(browser, address[0], 1240, 800)
        page.locator("#name").filter(has_text="astronaut").wait_for()
        page.locator("#text").fill("an astronaut in an orange suit in front of a flag")
        for key in ("Enter", "j", "j", "j", "x"):
            page.keyboard.press(key)
        page.wait_for_timeout(1000)  # the images are there when they are there
        page.screenshot(path=output)
        server.terminate()


# The name of an image -> what makes it, given a folder for its files.
SHOTS: dict[str, Callable[[Browser, Path, Path], None]] = {
    "report": report,
    "report-dark": report_dark,
    "report-phone": report_phone,
    "report-words": report_words,
    "explain": explain,
    "video": video,
    "video-dark": video_dark,
    "video-phone": video_phone,
    "videos": videos,
    "review": review,
}


SMOOTH = {"report-words"}  # Fewer colours would show as edges in them.


def shrink(path: Path) -> None:
    """Fewer colours: a third of the bytes, and nobody sees it."""
    with Image.open(path) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(
            path, optimize=True
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *SHOTS], metavar="NAME")
    parser.add_argument("--output", type=Path, default=IMAGES, metavar="DIR")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for name in args.names or SHOTS:
            output = args.output / f"{name}.png"
            SHOTS[name](browser, Path(folder), output)
            if name not in SMOOTH:
                shrink(output)
            print(f"{output}: {output.stat().st_size / 1000:.0f} kB")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
