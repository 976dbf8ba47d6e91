"""Familiarity: the distance is the textbook's, the share is a count, and strange is strange."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.model.familiarity import COMPONENTS, Familiarity
from captioner.model.results import Candidate, CaptionResult
from captioner.model.tags import FAMILIAR, trust

pytestmark = pytest.mark.arithmetic


def features(count: int, seed: int, size: int = 64) -> Tensor:
    """Features with much spread in a few directions and little in all others."""
    random = torch.Generator().manual_seed(seed)
    spread = torch.cat([torch.full((8,), 2.0), torch.full((size - 8,), 0.3)])
    return 3 + spread * torch.randn(count, size, generator=random)


@pytest.fixture(scope="module")
def fitted() -> Familiarity:
    return Familiarity.fit(features(600, seed=1), features(99, seed=2))


def test_the_distance_is_that_of_the_whole_covariance(fitted: Familiarity) -> None:
    images = features(5, seed=3)
    scaled = (images / images.norm(dim=1, keepdim=True)).double().numpy()
    basis, own = fitted.basis.double().numpy(), fitted.variances.double().numpy()
    other = float(fitted.other_variance)
    covariance = other * np.eye(64) + basis.T @ np.diag(own - other) @ basis
    away = scaled - fitted.mean.double().numpy()
    expected = np.einsum("nd,de,ne->n", away, np.linalg.inv(covariance), away)
    # The basis is kept in half precision, and is orthonormal to as many digits.
    assert np.allclose(fitted.distance(images).numpy(), expected, rtol=5e-3)


def test_the_fit_finds_the_directions_with_the_most_spread(fitted: Familiarity) -> None:
    learnt = features(600, seed=1)
    scaled = (learnt / learnt.norm(dim=1, keepdim=True)).double().numpy()
    variances = np.linalg.eigvalsh(np.cov(scaled.T))[::-1]
    assert fitted.basis.shape == (COMPONENTS, 64)
    assert np.allclose(fitted.variances.numpy(), variances[:COMPONENTS], rtol=1e-4)
    assert np.isclose(float(fitted.other_variance), variances[COMPONENTS:].mean(), rtol=1e-4)


def test_the_share_counts_the_images_that_are_as_far() -> None:
    mean, basis = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([[0.0, 1.0, 0.0]])
    one = torch.ones(1)
    # Of a unit vector at a right angle to the mean the squared distance is 2.
    distances = torch.tensor([0.5, 1.0, 2.0, 3.0])
    found = Familiarity(mean, basis, one, one, distances)
    assert found.distance(torch.tensor([[0.0, 7.0, 0.0]])).tolist() == [2.0]
    assert found(torch.tensor([[9.0, 0.0, 0.0], [0.0, 7.0, 0.0], [-1.0, 0.0, 0.0]])).tolist() == (
        pytest.approx([1.0, 3 / 5, 1 / 5])
    )


def test_other_images_of_the_same_world_are_familiar_and_strange_ones_are_not(
    fitted: Familiarity,
) -> None:
    same = fitted(features(400, seed=4))
    # The shares of images like the held-out ones are spread evenly from 0 to 1.
    assert abs(float(same.mean()) - 0.5) < 0.06
    assert abs(float((same < 0.2).float().mean()) - 0.2) < 0.08
    strange = features(50, seed=5).flip(1)  # as much spread, in other directions
    assert float(fitted(strange).max()) == pytest.approx(0.01)


def test_few_and_equal_images_can_be_fitted() -> None:
    fitted = Familiarity.fit(torch.ones(12, 4), torch.ones(3, 4))
    assert fitted.basis.shape == (1, 4)
    assert fitted(torch.tensor([[2.0, 2.0, 2.0, 2.0], [1.0, 0.0, 0.0, 0.0]])).tolist() == (
        pytest.approx([1.0, 0.25])
    )
    two = Familiarity.fit(torch.eye(2), torch.eye(2))
    assert two.basis.shape == (0, 2)
    assert two(torch.eye(2)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("learnt", "held_out"), [(1, 5), (0, 1), (5, 0)])
def test_too_few_images_are_refused(learnt: int, held_out: int) -> None:
    with pytest.raises(CaptionerError, match=f"{learnt} training images and {held_out} others"):
        Familiarity.fit(torch.rand(learnt, 4), torch.rand(held_out, 4))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("mean", torch.zeros(63), "do not fit"),
        ("basis", torch.zeros(32), "do not fit"),
        ("variances", torch.ones(31), "do not fit"),
        ("variances", torch.zeros(32), "not above 0"),
        ("other_variance", torch.ones(2), "do not fit"),
        ("distances", torch.tensor([2.0, 1.0]), "do not rise"),
        ("distances", torch.zeros(0), "do not rise"),
        ("distances", torch.tensor([1.0, torch.nan]), "do not rise"),
        ("mean", torch.full((64,), torch.inf), "not finite"),
        ("unknown", torch.zeros(1), "its tensors are"),
    ],
)
def test_damaged_tensors_are_refused(
    fitted: Familiarity, name: str, value: Tensor, reason: str
) -> None:
    with pytest.raises(CaptionerError, match=reason):
        Familiarity.from_state({**fitted.state_dict(), name: value})


def test_trust_falls_only_below_the_rarest_fiftieth() -> None:
    words = (Candidate("a dog", -1.0, 0.5, ("a", "dog"), (0.9, 0.8, 0.7)),)
    assert trust(CaptionResult(words)) == 1.0
    shares = (1.0, FAMILIAR, FAMILIAR / 2, 0.001)
    assert [trust(CaptionResult(words, familiarity=share)) for share in shares] == (
        pytest.approx([1.0, 1.0, 0.5, 0.05])
    )


def test_a_model_file_keeps_it(tiny_model: CaptionModel, tmp_path: Path) -> None:
    size = tiny_model.encoder.feature_size
    learnt, held_out = torch.rand(40, size), torch.rand(30, size)
    tiny_model.familiarity = Familiarity.fit(learnt, held_out)
    try:
        tiny_model.save(tmp_path / "m.safetensors")
        features = tiny_model.encode(torch.rand(3, 3, *tiny_model.transform.size))
        expected = tiny_model.familiarity(features.pooled)
    finally:
        tiny_model.familiarity = None
    loaded = CaptionModel.load(tmp_path / "m.safetensors", device="cpu")
    assert loaded.familiarity is not None
    assert loaded.familiarity(features.pooled).tolist() == expected.tolist()
    found = [each.familiarity for each in loaded.caption_features(features)]
    assert found == pytest.approx(expected.tolist())


def test_features_of_another_size_are_refused(tiny_model: CaptionModel, tmp_path: Path) -> None:
    tiny_model.familiarity = Familiarity.fit(torch.rand(40, 5), torch.rand(30, 5))
    try:
        tiny_model.save(tmp_path / "m.safetensors")
    finally:
        tiny_model.familiarity = None
    with pytest.raises(CaptionerError, match="its familiarity is of 5 features, the encoder has"):
        CaptionModel.load(tmp_path / "m.safetensors", device="cpu")
