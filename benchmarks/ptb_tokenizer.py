"""How often the tokenizer ptb differs from Stanford's PTBTokenizer, which coco-caption runs.

Needs Java and the extra `java-metrics`:

    python benchmarks/ptb_tokenizer.py --data data/flickr8k --split dev
"""

from __future__ import annotations

import argparse
from collections import Counter
from difflib import SequenceMatcher

from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from captioner.data.datasets import load_caption_data
from captioner.text.ptb_tokenizer import ptb_tokenize

SHOWN = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="as `captioner evaluate` reads it")
    parser.add_argument("--split", default="dev")
    args = parser.parse_args()
    examples = load_caption_data(args.data).split(args.split)
    captions = [caption for example in examples for caption in example.captions]
    java = _java_words(captions)
    tokens = differing_tokens = differing_captions = 0
    pairs: Counter[tuple[str, str]] = Counter()
    for caption, theirs in zip(captions, java, strict=True):
        ours = ptb_tokenize(caption)
        tokens += len(theirs)
        differing_captions += ours != theirs
        for kind, a, b, c, d in SequenceMatcher(None, theirs, ours, autojunk=False).get_opcodes():
            if kind != "equal":
                differing_tokens += max(b - a, d - c)
                pairs[" ".join(theirs[a:b]), " ".join(ours[c:d])] += 1
    print(f"{len(captions)} captions, {tokens} tokens of PTBTokenizer")
    print(f"tokens that differ: {differing_tokens} ({differing_tokens / tokens:.3%})")
    print(f"captions that differ: {differing_captions} ({differing_captions / len(captions):.2%})")
    for (theirs_text, ours_text), count in pairs.most_common(SHOWN):
        print(f"{count:5}  {theirs_text!r} there, {ours_text!r} here")


def _java_words(captions: list[str]) -> list[list[str]]:
    asked = {number: [{"caption": caption}] for number, caption in enumerate(captions)}
    found = PTBTokenizer().tokenize(asked)
    return [found[number][0].split() for number in range(len(captions))]


if __name__ == "__main__":
    main()
