"""Texts of any script in figures, with the fonts of the system."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageFont, features

from captioner.cli.entry import main
from captioner.errors import CaptionerError
from captioner.pages import fonts as fonts_module
from captioner.pages.fonts import check_letters, font_for
from helpers.images import noise
from helpers.languages import write_languages
from helpers.models import make_talker
from helpers.programs import fonts


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a dog's ball", None),
        ("ein Hund läuft über die Straße", "DejaVu Sans"),
        ("Příliš žluťoučký kůň", "DejaVu Sans"),
        ("一只狗，在草地上跑。", "Noto Sans CJK SC"),
        ("كلب يركض في الحديقة.", "DejaVu Sans"),
        ("穿T恤的人", "Noto Sans CJK SC"),
    ],
)
def test_the_font_of_a_text(text: str, name: str | None) -> None:
    fonts()
    found = font_for(text, 24)
    assert isinstance(found, ImageFont.FreeTypeFont) and found.size == 24
    expected = ImageFont.load_default(24).getname()[0] if name is None else name  # type: ignore
    assert found.getname()[0] == expected
    check_letters(text)


def test_a_letter_that_no_font_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts_module, "FILES", (("none.ttf", 0),))
    with pytest.raises(CaptionerError, match="the letter 狗 of the caption.*fonts-noto-cjk"):
        check_letters("a 狗")
    check_letters("a dog")


def test_explain_in_each_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fonts()
    assert features.check("raqm")
    monkeypatch.chdir(tmp_path)
    noise(3, 160, 120).save("a.jpg")
    model = make_talker()
    model.save(tmp_path / "model.safetensors", half=False)
    sizes = {}
    for path in write_languages(model, tmp_path, "de", "ar", "zh"):
        options = ["--model", "model.safetensors", "--device", "cpu", "--max-length", "3"]
        options += ["--output", f"{path.stem}.png", "--language", str(path)]
        assert main(["explain", "a.jpg", *options]) == 0
        with Image.open(f"{path.stem}.png") as image:
            # Where the first of three words has its map: at the end at which reading begins.
            ends = [image.convert("L").crop((x, 500, x + 203, 600)) for x in (40, 1157)]
            sizes[path.stem] = [len(end.getcolors(256) or ()) > 1 for end in ends]
    assert sizes == {"de": [True, False], "ar": [False, True], "zh": [True, False]}
