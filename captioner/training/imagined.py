"""Features for sentences without photos: what a photo of such a thing may look like to the CNN.

A sentence alone teaches a decoder what follows what, and to do without the image. Here it comes
with the grid of a training photo whose captions name much of the same, and cells of other photos
show what is missing there. CutMix pastes a part of one photo into another (Yun et al. 2019, section
3.1); CapDec learns to caption from texts alone, by features of texts that lie near those of their
photos (Nukrai et al. 2022, section 3).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, compress

import numpy as np

from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.model.tag_head import TagHead, named_lemmas
from captioner.text.lexicon import Lexicon
from captioner.training.batches import CaptionedImages

NEAREST, SHARPNESS = 8, 10.0
"""So many photos are most like a sentence; the logits of the draw among them are their similarities
times the sharpness, divided by the largest."""
CELLS, MOST = 0.15, 5
"""Share of the grid's cells that show a lemma that the photo lacks, and for how many lemmas."""


class Imagination:
    """Composes the grids of sentences out of those of photos.

    Args:
        photos: sources whose features are kept.
        lexicon: of the captions.
        head: classifier of the lexicon's first L lemmas by these features. Others do not count.
    """

    def __init__(self, photos: Sequence[CaptionedImages], lexicon: Lexicon, head: TagHead) -> None:
        self._photos, self._lexicon = photos, lexicon
        self._firsts = [0, *accumulate(map(len, photos))]
        self._weights = head.linear.weight.detach().cpu().float().numpy()  # (L, D)
        self._places = {lemma: place for place, lemma in enumerate(lexicon.lemmas[: len(head)])}
        captions = (example.captions for source in photos for example in source.examples)
        self._named = named_lemmas(captions, lexicon, len(head)).numpy()  # (N, L)
        self._photos_of = [np.flatnonzero(shown) for shown in self._named.T]
        rarity = np.log(len(self._named) / self._named.sum(axis=0).clip(min=1))
        self._worth = rarity**2  # of a lemma that two have in common
        self._lengths = np.sqrt(self._named @ self._worth).clip(min=1e-6)

    def grid(self, sentence: str, draw: np.random.Generator) -> np.ndarray:
        """Features (R, D), float16, of a photo as the sentence may describe it."""
        named = self._lexicon.lemmas_in([sentence])
        lemmas = sorted(self._places[lemma] for lemma in named if lemma in self._places)
        photo = self._draw_photo(lemmas, draw)
        grid = self._grid_of(photo, draw)
        missing = [
            lemma
            for lemma in lemmas
            if not self._named[photo, lemma] and len(self._photos_of[lemma])
        ]
        count = round(CELLS * len(grid))
        order = draw.permutation(len(grid))
        for number, lemma in enumerate(draw.permutation(missing)[:MOST].astype(int)):
            other = self._grid_of(draw.choice(self._photos_of[lemma]), draw)
            scores = other.astype(np.float32) @ self._weights[lemma]
            shown = np.argsort(scores)[len(grid) - count :]
            grid[order[number * count : (number + 1) * count]] = other[shown]
        return grid

    def _draw_photo(self, lemmas: Sequence[int], draw: np.random.Generator) -> int:
        """One of those whose captions have the most lemmas in common with a sentence.

        The similarity is the cosine of the two sets of lemmas, each weighted by its rarity (log of
        the inverse share of the photos that show it).
        """
        scores = np.zeros(len(self._named))
        for lemma in lemmas:
            scores[self._photos_of[lemma]] += self._worth[lemma]
        scores /= self._lengths
        if not scores.any():
            return int(draw.integers(len(scores)))
        nearest = np.argpartition(scores, -min(NEAREST, len(scores)))[-NEAREST:]
        logits = SHARPNESS * scores[nearest] / scores.max()
        return int(nearest[np.argmax(logits + draw.gumbel(size=len(nearest)))])

    def _grid_of(self, photo: int, draw: np.random.Generator) -> np.ndarray:
        """A copy of the grid (R, D) of one of the photo's kept views."""
        number = bisect_right(self._firsts, photo) - 1
        source = self._photos[number]
        assert source.cache is not None
        row = (photo - self._firsts[number]) * source.views + draw.integers(source.views)
        return np.array(source.cache[row])


def imagine_images(
    model: CaptionModel | None, sources: Sequence[CaptionedImages], texts: Sequence[bool]
) -> None:
    """Let the sources of sentences compose their grids out of those of the sources of photos.

    Args:
        model: that the training starts from, with the photos' CNN.
        sources: of one split.
        texts: which of them are of sentences.

    Raises:
        CaptionerError: there is no such model, no tag classifier in it, or no photo.
    """
    if model is None or model.tag_head is None or model.lexicon is None:
        raise CaptionerError(
            "data.imagine=true: the model to start from has no tag classifier, which finds what a "
            "photo shows; give model.init_from a model that `captioner calibrate` has made"
        )
    photos = [source for source, is_text in zip(sources, texts, strict=True) if not is_text]
    if not photos:
        raise CaptionerError(
            "data.imagine=true: composes the features of sentences from those of training photos, "
            "and data.sources has none; add a source with photos"
        )
    if not any(texts):
        return
    imagination = Imagination(photos, model.lexicon, model.tag_head)
    for source in compress(sources, texts):
        source.imagine = imagination.grid


def check_imagine(objective: str, *, frozen: bool, keeps_features: bool) -> None:
    """Refuse options that leave ``data.imagine`` nothing to compose.

    Args:
        objective: ``model.objective``.
        frozen: whether the CNN is not trained.
        keeps_features: whether its features are kept.

    Raises:
        CaptionerError: names the option and the value.
    """
    if objective != "language":
        raise CaptionerError(
            f"data.imagine=true: is for sentences, and model.objective={objective} has none; "
            "use model.objective=language"
        )
    if not frozen:
        raise CaptionerError("data.imagine=true: needs model.encoder.trainable=none")
    if not keeps_features:
        raise CaptionerError(
            "data.imagine=true: composes kept features, and data.views=0 keeps none of random "
            "views; give a number of views, or data.augment=false"
        )
