"""The words that decoding options name, as ids of a vocabulary: prompt, required, forbidden."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from captioner.decoding.options import DecodingOptions
from captioner.decoding.sentences import parse_blanks
from captioner.errors import CaptionerError
from captioner.text.tokenizer import BOS_ID, PAD_ID, UNK_ID, Tokenizer


@dataclass(frozen=True)
class Constraints:
    """What `captioner.decoding.search.decode` takes of them.

    Attributes:
        prompt: ids that every caption begins with.
        required: ids that every caption contains; those of the prompt are left out.
        forbidden: ids that the search never says.
        joining: ids of the joining words that the vocabulary has.
    """

    prompt: tuple[int, ...]
    required: tuple[int, ...]
    forbidden: tuple[int, ...]
    joining: tuple[int, ...] = ()


def find_constraints(options: DecodingOptions, tokenizer: Tokenizer) -> Constraints:
    """Look the options' words up.

    A banned word that the vocabulary lacks changes nothing; one to be said must be in it.

    Raises:
        CaptionerError: a word to say is not in the vocabulary, a word to include or to ban is not
            one word, a word is both requested and banned, or more words are given than
            `max_length` admits.
    """
    banned = [_single(text, "banned word", tokenizer) for text in options.banned_words]
    included = dict.fromkeys(
        _single(text, "word to include", tokenizer) for text in options.must_include
    )
    prompt = () if options.prompt is None else tuple(tokenizer.tokenize(options.prompt))
    if options.prompt is not None and not prompt:
        raise CaptionerError(f"prompt {options.prompt!r}: it has no letter; give the first words")
    for word in (*prompt, *included):
        if word in banned:
            raise CaptionerError(f"the word {word!r} is both requested and banned; choose one")
    prompt_ids = known_ids(prompt, tokenizer, f"prompt {options.prompt!r}")
    required = [word for word in included if word not in prompt]
    required_ids = [known_ids([word], tokenizer, "words to include")[0] for word in required]
    if (given := len(prompt) + len(required)) > options.max_length:
        raise CaptionerError(
            f"{given} words are to be said ({' '.join((*prompt, *required))}), and a caption has "
            f"at most {options.max_length}; raise max_length, or give fewer"
        )
    forbidden = (PAD_ID, BOS_ID, UNK_ID, *map(tokenizer.id_of, banned))
    joining = {tokenizer.id_of(word) for word in options.joining_words} - {UNK_ID}
    return Constraints(prompt_ids, tuple(required_ids), forbidden, tuple(sorted(joining)))


def known_ids(words: Sequence[str], tokenizer: Tokenizer, where: str) -> tuple[int, ...]:
    """The ids of tokenised words.

    Args:
        words: as the vocabulary's `Tokenizer.tokenize` gives them.
        tokenizer: the vocabulary.
        where: what the words are of, for the message.

    Raises:
        CaptionerError: names the first word that is not in the vocabulary, and similar ones.
    """
    ids = tuple(tokenizer.id_of(word) for word in words)
    if UNK_ID in ids:
        word = words[ids.index(UNK_ID)]
        hint = _similar(word, tokenizer) or "; use another word"
        raise CaptionerError(
            f"{where}: the word {word!r} is not in the model's vocabulary of "
            f"{len(tokenizer.words):,} words{hint}"
        )
    return ids


def read_sentence(
    sentence: str, tokenizer: Tokenizer
) -> tuple[tuple[str | None, ...], tuple[int | None, ...]]:
    """The words of a sentence with blanks, and their ids; None for each blank.

    Raises:
        CaptionerError: the sentence has no blank, or a word that is not in the vocabulary.
    """
    words = parse_blanks(sentence, tokenizer.tokenize)
    said = [word for word in words if word is not None]
    ids = iter(known_ids(said, tokenizer, f"sentence {sentence!r}"))
    return words, tuple(None if word is None else next(ids) for word in words)


def notes_on_banned(options: DecodingOptions, tokenizer: Tokenizer) -> list[str]:
    """What there is to say of banned words that the vocabulary lacks, each in a few words."""
    words = [word for text in options.banned_words for word in tokenizer.tokenize(text)]
    return [
        f"the model never says {word!r} anyway: it is not in its vocabulary of "
        f"{len(tokenizer.words):,} words{_similar(word, tokenizer)}"
        for word in words
        if tokenizer.id_of(word) == UNK_ID
    ]


def _similar(word: str, tokenizer: Tokenizer) -> str:
    similar = difflib.get_close_matches(word, tokenizer.words, n=3)
    return f"; it has {', '.join(map(repr, similar))}" if similar else ""


def _single(text: str, what: str, tokenizer: Tokenizer) -> str:
    words = tokenizer.tokenize(text)
    if len(words) != 1:
        found = f"is {len(words)} words ({', '.join(words)})" if words else "has no letter"
        raise CaptionerError(f"{what} {text!r}: it {found}; give single words")
    return words[0]
