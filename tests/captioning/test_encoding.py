"""Images are encoded in the rows that their places give them, by either engine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from captioner.captioning.encoding import encoded_batches
from captioner.files.finding import SourceFile
from captioner.model.caption_model import CaptionModel
from helpers.encoders import difference
from helpers.images import noise

pytestmark = pytest.mark.arithmetic

PLACES = (0, 3, 4, 5, 7)  # the others are finished, as in a run that is resumed
BAD = 4


@pytest.mark.parametrize("fixed_shape", [False, True])
@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_rows_follow_from_places(
    tiny_model: CaptionModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    fixed_shape: bool,
) -> None:
    if engine == "torch":
        monkeypatch.setitem(sys.modules, "captioner.networks.onnx_runtime", None)
    model = CaptionModel(tiny_model.encoder, tiny_model.decoder, tiny_model.tokenizer).eval()
    assert model.encoder_engine == engine
    files = [(place, SourceFile(tmp_path / f"{place}.png", str(place))) for place in PLACES]
    for place, file in files:
        noise(place).save(file.path)
    (tmp_path / f"{BAD}.png").write_bytes(b"no image")
    batches = list(
        encoded_batches(
            model,
            files,
            batch_size=3,
            workers=1,
            partial_images=False,
            fixed_shape=fixed_shape,
        )
    )
    assert [[image.place for image in batch.images] for batch in batches] == [[0], [3, 4, 5], [7]]
    assert [batch.rows for batch in batches] == (
        [[0], [0, 2], [1]] if fixed_shape else [[0], [0, 1], [0]]
    )
    for batch in batches:
        assert batch.features is not None
        assert len(batch.features.grid) == (3 if fixed_shape else len(batch.rows))
        read = [image for image in batch.images if image.error is None]
        assert [image.place for image in batch.images if image.error is not None] == [
            image.place for image in batch.images if image.place == BAD
        ]
        for row, image in zip(batch.rows, read, strict=True):
            expected = model.encode(model.read(image.file.path)[None])
            assert difference(batch.features.grid[row : row + 1], expected.grid) < 1e-5
            assert difference(batch.features.pooled[row : row + 1], expected.pooled) < 1e-5


def test_a_batch_without_a_readable_image_has_no_features(
    tiny_model: CaptionModel, tmp_path: Path
) -> None:
    files = [(place, SourceFile(tmp_path / f"{place}.png", str(place))) for place in range(2)]
    (batch,) = encoded_batches(
        tiny_model, files, batch_size=4, workers=0, partial_images=False, fixed_shape=True
    )
    assert [image.error for image in batch.images] == ["file not found"] * 2
    assert (batch.rows, batch.features) == ([], None)
