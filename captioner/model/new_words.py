"""Give a captioner words that it does not have yet; training teaches it what they mean."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from os.path import commonprefix

import torch
from torch import Tensor

from captioner.model.caption_model import CaptionModel
from captioner.networks.decoder import Decoder
from captioner.text.tokenizer import SPECIAL_WORDS, Tokenizer, tokenize

SHARED_LETTERS = 4
"""Words are akin that begin or end with as many equal letters, and with half of the new word's."""


def find_new_words(
    tokenizer: Tokenizer, captions: Iterable[str], min_count: int
) -> tuple[str, ...]:
    """The words that occur ``min_count`` times in the captions and are not in the vocabulary.

    The most frequent ones come first; words with the same count are in code point order.
    """
    counts = Counter(word for caption in captions for word in tokenize(caption))
    known = set(tokenizer.words)
    found = [word for word, count in counts.items() if count >= min_count and word not in known]
    return tuple(sorted(found, key=lambda word: (-counts[word], word)))


@torch.no_grad()
def add_words(model: CaptionModel, words: Sequence[str]) -> None:
    """Add words to the end of a captioner's vocabulary; ids and weights of the others stay.

    The weights of a new word, its output bias among them, are the mean of those of the words akin
    to it, or of all words where none is. So are its logits: it begins as probable as they are in
    the geometric mean, and with the average word's weights far from being said.

    Args:
        model: changed in place. Its lexicon is to be extended too; see `Lexicon.extended`.
        words: none of which is in the vocabulary.

    Raises:
        CaptionerError: a word is not one word of `tokenize`, or is in the vocabulary.
    """
    known = model.tokenizer.words
    tokenizer = Tokenizer([*known, *words])
    special = len(SPECIAL_WORDS)
    find_akin = _Akin(known)
    akin = [[special + place for place in find_akin(word)] for word in words]

    def grown(rows: Tensor) -> Tensor:
        average = rows[special : special + len(known)].mean(dim=0)
        new = [rows[places].mean(dim=0) if places else average for places in akin]
        return torch.cat([rows, torch.stack(new)]) if new else rows

    old = model.decoder
    decoder = Decoder(old.config, len(tokenizer), old.pooled_projection.in_features)
    state = old.state_dict()
    for name in ("embedding.weight", "output.weight", "output.bias"):
        state[name] = grown(state[name])
    decoder.load_state_dict(state)
    decoder.style = old.style
    model.decoder = decoder.to(model.device).train(old.training)
    model.tokenizer = tokenizer


class _Akin:
    """Finds the words that share most letters with a word at its beginning or its end."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known
        # Only those that begin or end alike can be akin: comparing all pairs takes minutes.
        self._places: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for place, word in enumerate(known):
            for end in _ends(word):
                self._places[end].append(place)

    def __call__(self, word: str) -> list[int]:
        """Their places, ascending."""
        alike = {place for end in _ends(word) for place in self._places.get(end, ())}
        shared = {place: _shared(word, self._known[place]) for place in sorted(alike)}
        most = max(shared.values(), default=0)
        if most < max(SHARED_LETTERS, len(word) / 2):
            return []
        return [place for place, count in shared.items() if count == most]


def _ends(word: str) -> tuple[tuple[str, str], ...]:
    """Its first and its last letters, as many as words that are akin share."""
    if len(word) < SHARED_LETTERS:
        return ()
    return ("first", word[:SHARED_LETTERS]), ("last", word[-SHARED_LETTERS:])


def _shared(word: str, other: str) -> int:
    """Equal letters at the beginning or, if they are more, at the end."""
    ends = commonprefix([word[::-1], other[::-1]])
    return max(len(commonprefix([word, other])), len(ends))
