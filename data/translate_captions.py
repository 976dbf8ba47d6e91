"""Translate the captions of a data set by a small recurrent network, to train another language on.

    python data/translate_captions.py --pairs data/translation --language de
        --captions data/photos/train.jsonl --only "coco/*" --output data/languages/de_coco.jsonl

The network (an encoder-decoder with attention, as in notebooks/04_translation.ipynb but larger) is
trained on the sentence pairs of Multi30k, `train.en.gz` and `train.de.gz`, and scored with BLEU on
`val.en.gz` and `val.de.gz`. A translation is kept if the network is sure of it and all its words
are in the sentences that people wrote in that language; an image without one is left out.
It takes about a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import fnmatch
import gzip
import io
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sacrebleu
import sentencepiece
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from captioner.files.writing import replace_file

PAD, BOS, EOS, UNK = range(4)
OTHERS = 600  # pieces drawn at random that are scored beside those of the batch
EMBED, HIDDEN = 192, 256
DROPOUT = 0.2
BATCH, RATE = 64, 2e-3
Pair = tuple[list[int], list[int]]


class State(NamedTuple):
    """Where the decoder stands in K translations of each of B sentences of S pieces.

    `hidden`: (B, K, H); `keys` and `values`: (B, S, H).
    """

    hidden: Tensor
    keys: Tensor
    values: Tensor

    def select_beams(self, beams: Tensor) -> State:
        """Keep these beams of each sentence, (B, K)."""
        rows = torch.arange(len(beams))[:, None]
        return self._replace(hidden=self.hidden[rows, beams])

    def select_images(self, sentences: Tensor) -> State:
        """Keep these sentences; the search calls them images."""
        return State(self.hidden[sentences], self.keys[sentences], self.values[sentences])


class Translator(nn.Module):
    """GRUs with the general attention of Luong et al. 2015, section 3.1."""

    def __init__(self, source_pieces: int, target_pieces: int) -> None:
        super().__init__()
        self.source = nn.Embedding(source_pieces, EMBED)
        self.target = nn.Embedding(target_pieces, EMBED)
        for embedding in (self.source, self.target):
            nn.init.normal_(embedding.weight, std=0.1)
        self.encoder = nn.GRU(EMBED, HIDDEN // 2, batch_first=True, bidirectional=True)
        self.decoder = nn.GRU(EMBED, HIDDEN, batch_first=True)
        self.bridge = nn.Linear(HIDDEN, HIDDEN)
        self.key = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.join = nn.Linear(2 * HIDDEN, EMBED)
        self.bias = nn.Parameter(torch.zeros(target_pieces))
        self.dropout = nn.Dropout(DROPOUT)

    def start(self, sentences: Tensor) -> State:
        """Sentences (B, S) of one length -> the decoder's first state, K = 1."""
        values, last = self.encoder(self.dropout(self.source(sentences)))
        hidden = torch.tanh(self.bridge(last.transpose(0, 1).flatten(1)))
        return State(hidden[:, None], self.key(values), values)

    def read_out(self, states: Tensor, state: State) -> Tensor:
        """States (B, T, H) -> what chooses the next piece, (B, T, E)."""
        weights = (states @ state.keys.transpose(1, 2)).softmax(dim=-1)
        context = weights @ state.values
        return self.dropout(torch.tanh(self.join(torch.cat([states, context], dim=-1))))

    def forward(self, sentences: Tensor, pieces: Tensor) -> Tensor:
        """Sentences (B, S) and translations (B, T) -> what chooses the next piece, (B, T, E)."""
        state = self.start(sentences)
        first = state.hidden.transpose(0, 1).contiguous()
        states, _ = self.decoder(self.dropout(self.target(pieces)), first)
        return self.read_out(states, state)

    def step(self, pieces: Tensor, state: State) -> tuple[Tensor, State]:
        """Last pieces (B, K) and state -> scores of the next (B, K, V), and the new state."""
        before = state.hidden.flatten(0, 1)[None].contiguous()
        states, last = self.decoder(self.target(pieces.flatten()[:, None]), before)
        read = self.read_out(states.view(*pieces.shape, -1), state)
        scores = F.linear(read, self.target.weight, self.bias)
        return scores, state._replace(hidden=last[0].view(*pieces.shape, -1))


def read_lines(path: Path) -> list[str]:
    """The lines of a compressed file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [line.strip() for line in file]


def learn_pieces(sentences: Sequence[str], pieces: int) -> Any:
    """A SentencePiece model of the sentences."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="bpe",
        vocab_size=pieces,
        character_coverage=1.0,
        minloglevel=2,
        **{"pad_id": PAD, "bos_id": BOS, "eos_id": EOS, "unk_id": UNK},
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def batches(pairs: Sequence[Pair], generator: random.Random) -> list[list[Pair]]:
    """Pairs whose first sides have one length, in random order."""
    by_length: dict[int, list[Pair]] = {}
    for pair in generator.sample(pairs, len(pairs)):
        by_length.setdefault(len(pair[0]), []).append(pair)
    cut = [same[k : k + BATCH] for same in by_length.values() for k in range(0, len(same), BATCH)]
    return generator.sample(cut, len(cut))


def loss_of(model: Translator, batch: Sequence[Pair], frequency: Tensor) -> Tensor:
    """Mean negative log-probability of the pieces, over a sample of all (Jean et al. 2015)."""
    sentences = torch.tensor([pair[0] for pair in batch])
    rows = nn.utils.rnn.pad_sequence(
        [torch.tensor([BOS, *pair[1], EOS]) for pair in batch], batch_first=True, padding_value=PAD
    )
    said = rows[:, 1:] != PAD
    read, wanted = model(sentences, rows[:, :-1])[said], rows[:, 1:][said]
    others = torch.randperm(len(frequency))[:OTHERS]
    scored = torch.unique(torch.cat([wanted, others]))
    missed = (1 - frequency) ** len(wanted) * (1 - len(others) / len(frequency))
    log_chance = torch.log1p(-missed)
    scores = F.linear(read, model.target.weight[scored], (model.bias - log_chance)[scored])
    return F.cross_entropy(scores, torch.searchsorted(scored, wanted), label_smoothing=0.1)


def train(
    pairs: Sequence[Pair], source_pieces: int, target_pieces: int, epochs: int, seed: int
) -> Translator:
    """Train a translator on pairs of pieces."""
    torch.manual_seed(seed)
    generator = random.Random(seed)
    counts = torch.zeros(target_pieces)
    for _, pieces in pairs:
        counts += torch.bincount(torch.tensor([*pieces, EOS]), minlength=target_pieces)
    model = Translator(source_pieces, target_pieces)
    work = [batch for _ in range(epochs) for batch in batches(pairs, generator)]
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=len(work), pct_start=0.1
    )
    for batch in tqdm(work, "training"):
        loss = loss_of(model, batch, counts / counts.sum())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def translate(
    model: Translator, sentences: Sequence[str], source: Any, target: Any, beam_size: int = 4
) -> list[tuple[str, float]]:
    """Translations, each with the mean log-probability of its pieces."""
    options = DecodingOptions(
        beam_size=beam_size, max_length=60, length_penalty=1.0, no_repeat_ngram=0
    )
    by_length: dict[int, list[tuple[int, list[int]]]] = {}
    for place, sentence in enumerate(sentences):
        pieces = source.encode(sentence)
        by_length.setdefault(len(pieces), []).append((place, pieces))
    groups = [
        same[k : k + BATCH] for same in by_length.values() for k in range(0, len(same), BATCH)
    ]
    found = [("", 0.0)] * len(sentences)
    for group in tqdm(groups, "translating"):
        places, rows = zip(*group, strict=True)
        with torch.inference_mode():
            answers = decode(
                model.step,
                model.start(torch.tensor(rows)),
                len(rows),
                options,
                bos=BOS,
                eos=EOS,
                forbidden=[PAD, BOS, UNK],
                device="cpu",
            )
        for place, (best, *_) in zip(places, answers, strict=True):
            surety = sum(best.log_probs) / len(best.log_probs)
            found[place] = (target.decode(list(best.ids)), surety)
    return found


def words_of(sentence: str) -> list[str]:
    """Its words in small letters."""
    return re.findall(r"\w+", sentence.lower())


def read_images(path: Path, patterns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The records of a JSONL file whose images match."""
    with path.open(encoding="utf-8") as file:
        for record in map(json.loads, file):
            if any(fnmatch.fnmatch(record["file_name"], pattern) for pattern in patterns):
                yield record


def main() -> None:
    """Train, score, translate, and write what is kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=Path, required=True, metavar="DIR")
    parser.add_argument("--language", required=True, help="of the translations: de or fr")
    parser.add_argument("--captions", type=Path, required=True, help="a JSONL file, in English")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="of images")
    parser.add_argument("--output", type=Path, required=True, help="a JSONL file")
    parser.add_argument("--surest", type=float, default=0.6, help="share to keep (%(default)s)")
    parser.add_argument("--pieces", type=int, default=4000, help="of each language (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="of the training (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    english, other = (read_lines(args.pairs / f"train.{x}.gz") for x in ("en", args.language))
    source, target = (learn_pieces(lines, args.pieces) for lines in (english, other))
    pairs = [(source.encode(a), target.encode(b)) for a, b in zip(english, other, strict=True)]
    sizes = source.get_piece_size(), target.get_piece_size()
    model = train([pair for pair in pairs if all(pair)], *sizes, args.epochs, args.seed)
    english, wanted = (read_lines(args.pairs / f"val.{x}.gz") for x in ("en", args.language))
    said = [text for text, _ in translate(model, english, source, target)]
    print(f"BLEU of {len(said)} sentences: {sacrebleu.corpus_bleu(said, [wanted]).score:.1f}")

    images = list(read_images(args.captions, args.only))
    captions = [caption for image in images for caption in image["captions"]]
    translated = iter(translate(model, captions, source, target))
    known = Counter(word for sentence in other for word in words_of(sentence))
    found = [[next(translated) for _ in image["captions"]] for image in images]
    ranked = sorted((surety for each in found for _, surety in each), reverse=True)
    least = ranked[int(args.surest * (len(ranked) - 1))]
    lines, kept = [], 0
    for image, answers in zip(images, found, strict=True):
        good = [
            text
            for text, surety in answers
            if surety >= least and all(known[word] > 1 for word in words_of(text))
        ]
        kept += len(good)
        if good:
            record = {"file_name": image["file_name"], "captions": good, "split": "train"}
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    replace_file(args.output, "".join(lines))
    print(f"{kept} of {len(captions)} captions, of {len(lines)} of {len(images)} images")


if __name__ == "__main__":
    main()
