"""Damage images where that reaches new code of Pillow's, with atheris (`pip install atheris`).

    python tests/fuzz/fuzz_guided.py -max_total_time=600

It watches Pillow's Python code, not the C libraries below. What is neither an image nor an
`ImageError` ends it and leaves the file in the current folder. Other options are libFuzzer's.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL"]):
    from PIL import Image

    Image.init()

from mutations import MAKERS, whole_files

from captioner.images.reading import ImageError, read_image


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        for format in MAKERS:
            for number, data in enumerate(whole_files(format)):
                if len(data) < 20_000:
                    (folder / "corpus" / f"{format}{number}").write_bytes(data)

        def read(data: bytes) -> None:
            (folder / "picture").write_bytes(data)
            try:
                image = read_image(folder / "picture", min_side=672, max_pixels=10**6)
            except ImageError as error:
                assert error.reason.isprintable() and 0 < len(error.reason) < 160
            else:
                assert image.mode == "RGB"

        options = ["-max_len=20000", "-timeout=20", "-rss_limit_mb=3000"]
        atheris.Setup([sys.argv[0], *options, *sys.argv[1:], str(folder / "corpus")], read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
