"""The cache of a frozen encoder's features: the right numbers, and no wrong ones ever."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.errors import CaptionerError
from captioner.files.writing import default_cache_dir
from captioner.images.reading import ImageError, read_image
from captioner.networks.configs import EncoderConfig
from captioner.networks.encoder import Encoder
from captioner.training import feature_cache
from captioner.training.feature_cache import DTYPE, SAVE_EVERY, FeatureCache

CONFIG = EncoderConfig(name="timm/test_resnet", weights="none", image_size=64)
COUNT = 30


pytestmark = [pytest.mark.arithmetic, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(CONFIG).eval()


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Images of noise, each another."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(COUNT):
        pixels = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((80, 60)).save(folder / f"{index:02d}.png")
    return sorted(folder.iterdir())


@pytest.fixture
def cache(tmp_path: Path, encoder: Encoder, paths: list[Path]) -> FeatureCache:
    return FeatureCache(tmp_path / "cache", encoder, paths)


def expected(encoder: Encoder, paths: Sequence[Path], batch_size: int) -> np.ndarray:
    rows = []
    with torch.inference_mode():
        for first in range(0, len(paths), batch_size):
            part = paths[first : first + batch_size]
            pixels = torch.stack([encoder.transform(read_image(path)) for path in part])
            rows.append(encoder(pixels).grid.numpy().astype(np.float16))
    return np.concatenate(rows)


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    """Equal, up to the last digit of half precision: ONNX Runtime sums in another order."""
    np.testing.assert_allclose(found.astype(float), wanted.astype(float), rtol=2**-9, atol=2**-13)


def in_child(act: Callable[[], object]) -> int:
    """Exit code of a forked process that does this: 0, 1 after an exception, -9 when killed."""
    process = multiprocessing.get_context("fork").Process(target=act)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def kill_at_image(number: int) -> None:
    """Let this process be killed when it reads its Nth image."""
    left = [number]

    def read(path: str | Path, **options: Any) -> Image.Image:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return read_image(path, **options)

    feature_cache.read_image = read


def build_until(cache: FeatureCache, number: int) -> None:
    """Build, image by image, in a process that is killed when it reads its Nth one."""

    def build() -> None:
        kill_at_image(number)
        cache.open(batch_size=1, progress=False)

    assert in_child(build) == -signal.SIGKILL


def test_features_are_the_encoders_in_half_precision(
    cache: FeatureCache, encoder: Encoder, paths: list[Path]
) -> None:
    assert not cache.complete
    array = cache.open(batch_size=8)
    assert cache.complete
    rows, columns = encoder.grid_shape
    assert array.shape == (COUNT, rows * columns, encoder.feature_size)
    assert array.dtype == DTYPE == np.float16
    assert cache.size_bytes == array.nbytes
    assert_close(array, expected(encoder, paths, 8))
    assert len({row.tobytes() for row in array}) == COUNT  # no two images alike


def test_the_array_is_read_from_the_file_and_cannot_be_changed(cache: FeatureCache) -> None:
    array = cache.open()
    assert isinstance(array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0


def test_a_finished_cache_is_used_as_it_is(
    cache: FeatureCache, encoder: Encoder, paths: list[Path], tmp_path: Path
) -> None:
    cache.open()
    before = cache._array_file.stat()
    again = FeatureCache(tmp_path / "cache", encoder, paths)
    again.open()
    after = again._array_file.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    names = sorted(file.name for file in cache.folder.iterdir())
    assert names == ["grid.npy", "lock", "state.json"]


def test_a_finished_cache_needs_no_right_to_write(cache: FeatureCache) -> None:
    first = np.array(cache.open())
    (cache.folder / "lock").unlink()
    (cache.folder / "lock").mkdir()  # whoever opens it to write fails
    assert np.array_equal(cache.open(), first)


def test_the_key_tells_encoders_and_images_apart(
    tmp_path: Path, encoder: Encoder, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(encoder: Encoder, paths: list[Path]) -> str:
        return FeatureCache(tmp_path, encoder, paths).folder.name

    def built(**changes: object) -> Encoder:
        torch.manual_seed(0)
        return Encoder(replace(CONFIG, **changes)).eval()  # type: ignore[arg-type]

    same = built()
    assert key(same, paths) == key(encoder, paths)
    other_weights = built()
    with torch.no_grad():
        next(other_weights.parameters())[0, 0, 0, 0] += 1e-3
    keys = [
        key(encoder, paths),
        key(other_weights, paths),
        key(built(resize="crop"), paths),
        key(built(image_size=96), paths),
        key(built(name="timm/test_efficientnet"), paths),
        key(encoder, paths[:-1]),
        key(encoder, paths[::-1]),
    ]
    monkeypatch.setattr(feature_cache, "READER_VERSION", feature_cache.READER_VERSION + 1)
    keys.append(key(encoder, paths))
    assert len(set(keys)) == len(keys)


def test_the_key_depends_on_the_file_and_not_on_how_it_is_named(
    tmp_path: Path, encoder: Encoder, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(paths[0].parent)
    relative = [Path(path.name) for path in paths]
    one, two = (FeatureCache(tmp_path, encoder, each).folder for each in (paths, relative))
    assert one == two


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_without_locks_it_is_built_all_the_same(
    cache: FeatureCache,
    encoder: Encoder,
    paths: list[Path],
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert_close(cache.open(progress=False), expected(encoder, paths, 32))
    assert "has no file locks" in capsys.readouterr().err


def test_an_encoder_in_training_mode_is_refused(tmp_path: Path, paths: list[Path]) -> None:
    encoder = Encoder(replace(CONFIG, trainable="all", freeze_batch_norm=False)).train()
    with pytest.raises(AssertionError, match="training mode"):
        FeatureCache(tmp_path, encoder, paths)


def test_a_killed_build_goes_on_and_ends_the_same(
    cache: FeatureCache, encoder: Encoder, paths: list[Path], tmp_path: Path
) -> None:
    build_until(cache, SAVE_EVERY + 5)
    assert not cache.complete
    array = cache.open(batch_size=1)
    undisturbed = FeatureCache(tmp_path / "other", encoder, paths)
    undisturbed.open(batch_size=1)
    assert_close(array, expected(encoder, paths, 1))
    assert cache._array_file.read_bytes() == undisturbed._array_file.read_bytes()


def test_rows_that_are_done_are_not_computed_again(
    cache: FeatureCache, encoder: Encoder, paths: list[Path]
) -> None:
    build_until(cache, SAVE_EVERY + 5)
    partial = np.lib.format.open_memmap(cache._partial_file, mode="r+")
    partial[0] = 7.0  # a mark that only a second computation would take away
    partial.flush()
    array = cache.open(batch_size=1)
    assert np.all(array[0] == 7.0)
    assert_close(array[1:], expected(encoder, paths, 1)[1:])


def test_a_build_killed_before_its_last_step_ends(cache: FeatureCache) -> None:
    whole = np.array(cache.open())
    os.replace(cache._array_file, cache._partial_file)  # all rows are there, the name is not
    assert not cache.complete
    assert np.array_equal(cache.open(), whole)


def test_a_state_without_its_array_is_not_believed(
    cache: FeatureCache, encoder: Encoder, paths: list[Path]
) -> None:
    cache.open(batch_size=1)
    cache._array_file.unlink()  # the state still says that all rows are done

    build_until(cache, 5)
    assert_close(cache.open(batch_size=1), expected(encoder, paths, 1))


def test_an_array_without_its_state_is_built_again(
    cache: FeatureCache, encoder: Encoder, paths: list[Path]
) -> None:
    cache.open()
    cache._state_file.unlink()  # nobody knows any more which images it was made from
    pixels = np.random.default_rng(99).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(paths[3])
    assert_close(cache.open(), expected(encoder, paths, 32))


@pytest.mark.parametrize("added", [b"", b"more"], ids=["same size", "other size"])
def test_an_image_that_changed_is_noticed(
    cache: FeatureCache, paths: list[Path], added: bytes
) -> None:
    cache.open()
    content = paths[7].read_bytes()
    paths[7].write_bytes(content[:-1] + bytes([content[-1] ^ 1]) + added)
    with pytest.raises(CaptionerError, match=f"stale, {paths[7]} has changed.*delete that folder"):
        cache.open()


def copied(paths: Sequence[Path]) -> None:
    """Give images the times that a copy or a checkout would give them."""
    for path in paths:
        os.utime(path, (1e9, 1e9))


def test_images_that_were_copied_again_keep_their_features(
    cache: FeatureCache, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.open()
    before = cache._array_file.stat()
    copied(paths)
    cache.open()
    after = cache._array_file.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    monkeypatch.setattr(feature_cache, "_hash", lambda path: pytest.fail(f"{path} compared again"))
    cache.open()


def test_a_build_goes_on_with_images_that_were_copied_again(
    cache: FeatureCache, encoder: Encoder, paths: list[Path]
) -> None:
    build_until(cache, SAVE_EVERY + 5)
    copied(paths)
    assert_close(cache.open(batch_size=1), expected(encoder, paths, 1))


def test_without_hashes_as_earlier_versions_left_it_times_decide(
    cache: FeatureCache, paths: list[Path]
) -> None:
    cache.open()
    state = json.loads(cache._state_file.read_text())
    del state["hashes"]
    cache._state_file.write_text(json.dumps(state))
    cache.open()
    copied(paths[7:8])
    with pytest.raises(CaptionerError, match=f"stale, {paths[7]} has changed"):
        cache.open()


def test_a_missing_image_is_named(cache: FeatureCache, paths: list[Path]) -> None:
    paths[7].unlink()
    with pytest.raises(CaptionerError, match=f"^image {paths[7]}: No such file or directory$"):
        cache.open()


def test_a_bad_image_is_named_and_can_be_repaired(
    cache: FeatureCache, encoder: Encoder, paths: list[Path]
) -> None:
    good = paths[SAVE_EVERY + 3].read_bytes()
    paths[SAVE_EVERY + 3].write_bytes(b"not an image at all")
    with pytest.raises(ImageError, match=f"^{paths[SAVE_EVERY + 3]}: "):
        cache.open(batch_size=1)
    paths[SAVE_EVERY + 3].write_bytes(good)
    assert_close(cache.open(batch_size=1), expected(encoder, paths, 1))


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2]", b"\xff", b'{"images": [], "done": 0}'])
def test_a_damaged_state_is_named(cache: FeatureCache, content: bytes) -> None:
    cache.open()
    cache._state_file.write_bytes(content)
    with pytest.raises(CaptionerError, match=f"^feature cache {cache.folder}: damaged; delete"):
        cache.open()


def test_a_truncated_array_is_named(cache: FeatureCache) -> None:
    cache.open()
    os.truncate(cache._array_file, cache._array_file.stat().st_size // 2)
    with pytest.raises(CaptionerError, match=f"^feature cache {cache.folder}: damaged; delete"):
        cache.open()


def test_an_array_of_another_shape_is_named(cache: FeatureCache) -> None:
    cache.open()
    np.save(cache._array_file, np.zeros((2, 3), np.float16))
    with pytest.raises(CaptionerError, match=f"^feature cache {cache.folder}: damaged; delete"):
        cache.open()


def test_a_place_that_cannot_be_written(
    tmp_path: Path, encoder: Encoder, paths: list[Path]
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = FeatureCache(tmp_path / "file" / "cache", encoder, paths)
    with pytest.raises(CaptionerError, match=r"Not a directory; choose .*--data\.cache_dir"):
        cache.open()


def test_a_full_disk_is_an_error_and_leaves_nothing(cache: FeatureCache) -> None:
    def build() -> None:
        # Stands for a full disk: this process may write files of one kilobyte at most.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
        try:
            cache.open(progress=False)
        except CaptionerError as error:
            os._exit(7 if os.strerror(errno.EFBIG) in str(error) else 8)

    assert in_child(build) == 7
    assert sorted(file.name for file in cache.folder.iterdir()) == ["lock"]


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_features_that_half_precision_cannot_hold_are_refused(
    tmp_path: Path, paths: list[Path], value: float
) -> None:
    encoder = Encoder(CONFIG).eval()
    last = [module for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)][-1]
    with torch.no_grad():
        last.bias.fill_(value)
    with pytest.raises(CaptionerError, match="not numbers or beyond 65504"):
        FeatureCache(tmp_path / "cache", encoder, paths).open()


def test_two_processes_build_one_cache(
    cache: FeatureCache, encoder: Encoder, paths: list[Path]
) -> None:
    context = multiprocessing.get_context("fork")
    both = [
        context.Process(target=lambda: cache.open(batch_size=1, progress=False)) for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert_close(cache.open(), expected(encoder, paths, 1))


def test_the_second_process_waits_for_the_first(
    cache: FeatureCache, capfd: pytest.CaptureFixture[str]
) -> None:
    cache.folder.mkdir(parents=True)
    with (cache.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def build() -> None:
            lock.close()  # this process's copy: else it would wait for itself
            cache.open()

        process = multiprocessing.get_context("fork").Process(target=build)
        process.start()
        deadline = time.monotonic() + 30
        heard = ""
        while "waiting for the process that fills it" not in heard:
            assert time.monotonic() < deadline
            time.sleep(0.05)
            heard += capfd.readouterr().err
        assert process.is_alive()
        assert [file.name for file in cache.folder.iterdir()] == ["lock"]
    process.join(60)
    assert process.exitcode == 0
    assert cache.complete


def test_where_caches_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "captioner"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somewhere")
    assert default_cache_dir() == Path("/somewhere/.cache/captioner")
