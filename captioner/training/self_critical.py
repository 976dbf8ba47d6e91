"""Self-critical sequence training: draw captions, score them, make the better ones more probable.

Rennie et al. 2017 (arXiv:1612.00563), with several samples of an image and the mean reward of the
others as each one's baseline (Luo 2020, arXiv:2003.09971). The end of the sentence is a word of
the rewards: without it, captions that stop at "with a" cost nothing (Luo 2020, section 4).

Shapes: B images, C samples of each, T words, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from captioner.decoding.hypotheses import Hypothesis
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from captioner.networks.decoder import Decoder
from captioner.networks.decoder_steps import DecoderSteps
from captioner.networks.features import ImageFeatures
from captioner.networks.weights import evaluating
from captioner.text.bleu import Bleu
from captioner.text.cider import CiderD
from captioner.text.scores import References, Tokenize
from captioner.text.tokenizer import (
    BOS_ID,
    EOS_ID,
    PAD_ID,
    SPECIAL_WORDS,
    UNK_ID,
    Tokenizer,
    tokenize,
)

END = SPECIAL_WORDS[EOS_ID]
NEVER_SAID = (PAD_ID, BOS_ID, UNK_ID)


def words_and_end(text: str, tokenize: Tokenize = tokenize) -> list[str]:
    """The words of a reference caption and, as the last one, the end of the sentence."""
    return [*tokenize(text), END]


class CaptionReward:
    """CIDEr-D of sampled captions, 0 to 10, with the end of the sentence as a word.

    Args:
        references: image id -> its captions, for all images of the training split: the document
            frequencies are theirs.
        tokenizer: turns the samples' ids into words.
        bleu_weight: times a sample's BLEU-4, 0 to 1, is added. CIDEr-D alone likes captions short;
            BLEU has its brevity penalty.
    """

    def __init__(
        self, references: References, tokenizer: Tokenizer, bleu_weight: float = 0.0
    ) -> None:
        self.tokenizer = tokenizer
        self.bleu_weight = bleu_weight
        split = partial(words_and_end, tokenize=tokenizer.tokenize)
        self._cider = CiderD(references, tokenize=split)
        self._bleu = Bleu(references, tokenize=split) if bleu_weight else None

    def score(self, image_ids: Sequence[str], samples: Sequence[Sequence[Hypothesis]]) -> Tensor:
        """Rewards (B, C) float32 of C samples for each of B images.

        A sample that was cut at the length limit has no end to be rewarded for.
        """
        pairs = [
            (image_id, [*self.tokenizer.decode(sample.ids), *([END] * sample.finished)])
            for image_id, of_image in zip(image_ids, samples, strict=True)
            for sample in of_image
        ]
        rewards = torch.tensor(self._cider.score(pairs))
        if self._bleu is not None:
            rewards += self.bleu_weight * torch.tensor(self._bleu.score(pairs))
        return rewards.view(len(samples), -1)


def draw_samples(
    decoder: Decoder,
    features: ImageFeatures,
    options: DecodingOptions,
    streams: Sequence[int],
    styles: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """Draw captions from the decoder as it captions, without dropout and without gradients.

    Args:
        decoder: may be in training mode, and is again afterwards.
        features: of B images.
        options: with ``sample``; ``num_captions`` is C.
        streams: the number of each image's random numbers (B,).
        styles: (B,) int64, of the captions; None: the decoder's own.

    Returns:
        C samples for each image.
    """
    with torch.no_grad(), evaluating(decoder):
        steps = DecoderSteps(decoder)
        return decode(
            steps.step,
            steps.start(features, styles),
            len(features.grid),
            options,
            bos=BOS_ID,
            eos=EOS_ID,
            forbidden=NEVER_SAID,
            device=features.grid.device,
            streams=streams,
        )


def as_captions(samples: Sequence[Sequence[Hypothesis]]) -> Tensor:
    """Samples as training captions (B, C, T + 1): start symbol, words, end symbol, padding."""
    rows = [
        torch.tensor([BOS_ID, *sample.ids, *([EOS_ID] * sample.finished)])
        for of_image in samples
        for sample in of_image
    ]
    padded = pad_sequence(rows, batch_first=True, padding_value=PAD_ID)
    return padded.view(len(samples), -1, padded.shape[-1])


def advantages(rewards: Tensor) -> Tensor:
    """What each reward (B, C) is above the mean of the image's other samples (B, C)."""
    count = rewards.shape[1]
    others = (rewards.sum(dim=1, keepdim=True) - rewards) / (count - 1)
    return rewards - others


def policy_loss(
    logits: Tensor, words: Tensor, advantage: Tensor, temperature: float = 1.0
) -> Tensor:
    """Its gradient is the policy gradient: the mean of -advantage * log p(word) over the words.

    Args:
        logits: (words, V), of the words that were drawn.
        words: (words,) int64.
        advantage: (words,), that of the sample which the word is in.
        temperature: that the words were drawn with.
    """
    # Drawn were words from among those that may be said, so that theirs is the probability.
    logits = logits.float().index_fill(
        1, logits.new_tensor(NEVER_SAID, dtype=torch.int64), -torch.inf
    )
    log_probs = (logits / temperature).log_softmax(dim=1).gather(1, words[:, None])[:, 0]
    return -(advantage * log_probs).mean()
