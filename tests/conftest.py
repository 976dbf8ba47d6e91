"""Fixtures of several folders: models, folders of images, files that cannot be read."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from PIL import Image

from helpers.browser import chromium, launch, open_page, watch  # noqa: F401
from helpers.images import noise
from helpers.programs import exiftool, exiv2, java  # noqa: F401

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel

if sys.platform == "win32":
    # They fork, signal, lock and limit processes as only POSIX does.
    collect_ignore = [
        "captioning/test_embedding.py",
        "captioning/test_job.py",
        "captioning/test_job_interrupted.py",
        "fuzz",
        "shards",
        "training/test_feature_cache.py",
        "training/test_lightning_cli.py",
        "training/test_task.py",
    ]


# Before torch is imported, here and in the programs that tests start: several run at once.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """Leave what all tests keep, torch and thousands of tests, out of each garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Tests interrupt processes: a shell that runs pytest in the background lets it ignore that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For modules that fork (OpenMP's threads do not survive it) or compare the last digits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_shapes() -> Callable[[Path, int], Path]:
    """Make a toy set of so many images in a new folder, with the script users run."""
    script = Path(__file__).parents[1] / "data" / "make_shapes.py"
    spec = importlib.util.spec_from_file_location("make_shapes", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_shapes"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)

    def make(folder: Path, images: int) -> Path:
        assert module.main([str(folder), "--images", str(images)]) == 0
        return folder

    return make


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """A folder with eight captionable files, five in it and three below it, names of all kinds."""
    folder = tmp_path / "photos"
    names = [
        "a.jpg",
        "b.PNG",
        "c d.webp",
        "grün.gif",
        "über straße.tiff",
        "sub/a.jpg",
        "sub/deep/z.bmp",
        "sub/deep/日本.jpeg",
    ]
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(index).save(path)
    return folder


@pytest.fixture(scope="session")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind of damage -> file. Nothing here is an image that can be read."""
    folder = tmp_path_factory.mktemp("bad")
    files: dict[str, Path] = {}

    def add(kind: str, name: str, data: bytes) -> None:
        files[kind] = folder / name
        files[kind].write_bytes(data)

    for suffix in ("jpg", "png", "gif", "webp", "bmp", "tif", "ppm", "avif"):
        whole = folder / f"whole.{suffix}"
        noise(1).save(whole)
        data = whole.read_bytes()
        # Inside the pixels: two bytes before the end a GIF lacks its trailer only.
        add(f"truncated {suffix}", f"truncated.{suffix}", data[: len(data) * 2 // 3])
        whole.unlink()
    add("empty", "empty.jpg", b"")
    add("zeros", "zeros.jpg", bytes(4096))
    add("text", "text.jpg", b"just words\n" * 10)
    add("html", "page.png", b"<!DOCTYPE html><html><body>404</body></html>")
    add("heic", "phone.heic", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100))
    add("pdf", "scan.tiff", b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    return files


@pytest.fixture
def special_files(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Kind -> something that is no regular file."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as server:
        # A socket's path may have 107 bytes; pytest's folders can be longer.
        server.bind(f"{short}/s.jpg")
        yield {
            "a named pipe": tmp_path / "pipe.jpg",
            "a folder": tmp_path / "folder.jpg",
            "a device": Path("/dev/zero"),
            "a socket": Path(short) / "s.jpg",
        }


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that other users can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def without_privileges() -> Callable[[], AbstractContextManager[None]]:
    """A context in which file permissions count, even for root."""
    Image.init()  # Decoders are imported on first use, from folders only root may enter.

    @contextmanager
    def context() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return context


@pytest.fixture(scope="session")
def tiny_model() -> CaptionModel:
    """A real captioner of 64 x 64 pixels without training. Do not change it."""
    import torch

    from captioner.model.caption_model import CaptionModel
    from captioner.networks.configs import DecoderConfig, EncoderConfig
    from captioner.text.tokenizer import Tokenizer, tokenize

    torch.manual_seed(0)
    model = CaptionModel.build(
        EncoderConfig(name="timm/test_efficientnet", weights="none", image_size=64),
        DecoderConfig(hidden_size=32, embed_size=32, heads=2),
        Tokenizer(tokenize("a dog runs in the snow man red ball on grass child jumps water")),
    )
    # Untrained weights are so small that every image would get the same caption.
    for parameter in model.decoder.parameters():
        parameter.data.mul_(5)
    return model.eval()


@pytest.fixture(scope="session")
def tagging_model(
    tiny_model: CaptionModel, tmp_path_factory: pytest.TempPathFactory
) -> CaptionModel:
    """The tiny captioner out of a file, with a lexicon. Do not change it."""
    from captioner.model.caption_model import CaptionModel
    from captioner.text.lexicon import Lemma, Lexicon

    path = tmp_path_factory.mktemp("model") / "tagging.safetensors"
    tiny_model.save(path, half=False)
    model = CaptionModel.load(path)
    types = {"dog": "noun", "run": "verb", "snow": "noun", "man": "noun", "red": "adjective"}
    types |= {"ball": "noun", "grass": "noun", "child": "noun", "jump": "verb", "water": "noun"}
    lemmas = [Lemma(name, kind, 1 / (2 + i)) for i, (name, kind) in enumerate(types.items())]
    places = {name: place for place, name in enumerate(types)}
    places |= {"runs": places["run"], "jumps": places["jump"]}
    words = model.tokenizer.words
    model.lexicon = Lexicon(words, lemmas, [places.get(word, -1) for word in words])
    model.save(path, half=False)
    return CaptionModel.load(path)
