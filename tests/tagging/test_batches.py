"""Captioning frames of videos a group and a batch at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.images.transform import ImageTransform
from captioner.model.caption_model import CaptionModel
from captioner.model.results import CaptionResult
from captioner.networks.fast_encoder import CHUNK
from captioner.tagging.batches import FrameCaptioner
from helpers.videos import photo

pytestmark = pytest.mark.arithmetic

NAMES = ("stairs", "coffee", "cat", "rocket", "raccoon", "temple", "astronaut", "cameraman", "cat")


def pixels_of(name: str, transform: ImageTransform) -> bytes:
    return transform.fit(Image.fromarray(photo(name))).tobytes()


@pytest.mark.parametrize(
    ("batch_size", "encoded", "captioned"),
    [(1, range(1, 10), range(1, 10)), (6, (4, 6, 9), (6, 9)), (16, (4, 8, 9), (9,))],
)
def test_each_image_gets_its_caption(
    tagging_model: CaptionModel,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    encoded: tuple[int, ...],
    captioned: tuple[int, ...],
) -> None:
    """`encoded` and `captioned`: how many images were added when it was done."""
    found: list[tuple[CaptionResult, np.ndarray]] = []
    seen: list[int] = []
    done: list[int] = []
    shapes = set()
    added = 0
    encode = tagging_model.encode

    def watched(images: torch.Tensor) -> object:
        seen.append(added)
        shapes.add(tuple(images.shape))
        return encode(images)

    monkeypatch.setattr(tagging_model, "encode", watched)
    captioner = FrameCaptioner(tagging_model, tagging_model.decoding, batch_size)
    for added, name in enumerate(NAMES, start=1):
        captioner.add(
            pixels_of(name, tagging_model.transform), lambda *result: found.append(result)
        )
        if len(found) == added:
            done.append(added)
    captioner.flush()
    captioner.flush()  # Nothing waits.
    assert seen == list(encoded)
    assert sorted({*done, len(found)}) == list(captioned)
    width, height = tagging_model.transform.size
    assert shapes == {(min(CHUNK, batch_size), 3, height, width)}
    wanted = tagging_model.caption([photo(name) for name in NAMES], tagging_model.decoding)
    assert [result.text for result, _ in found] == [each.text for each in wanted]
    assert found[2][0].confidence == pytest.approx(found[8][0].confidence, abs=1e-6)
    assert [np.linalg.norm(look) for _, look in found] == pytest.approx([1.0] * 9, abs=1e-6)


def test_the_search_has_half_of_the_threads_until_the_last(
    tagging_model: CaptionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    search = tagging_model.caption_features

    def watched(*args: object, **options: object) -> object:
        threads.append(torch.get_num_threads())
        return search(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(tagging_model, "caption_features", watched)
    before = torch.get_num_threads()
    try:
        for count in (4, 3, 1):
            torch.set_num_threads(count)
            captioner = FrameCaptioner(tagging_model, tagging_model.decoding, 1)
            captioner.add(pixels_of("cat", tagging_model.transform), lambda *result: None)
            assert torch.get_num_threads() == count
        torch.set_num_threads(4)
        captioner = FrameCaptioner(tagging_model, tagging_model.decoding, 2)
        captioner.add(pixels_of("cat", tagging_model.transform), lambda *result: None)
        captioner.flush(is_last=True)
    finally:
        torch.set_num_threads(before)
    assert threads == [2, 1, 1, 4]
