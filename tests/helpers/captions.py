"""Captions of ten images and what people said of them: short, empty, equal, shuffled ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.text.tokenizer import tokenize

Texts = dict[str, list[str]]

FLICKR8K = Path(__file__).parents[3] / "shared" / "flickr8k" / "Flickr8k.token.txt"

REFERENCES = {
    "dog.jpg": [
        "A brown dog runs through the grass .",
        "The dog is running across a green field",
        "A dog with a red collar runs in the grass.",
        "Brown dog running outdoors",
        "a large dog races over the man 's lawn",
    ],
    "surf.jpg": [
        "A man rides a wave on a surfboard.",
        "A surfer in a black wetsuit rides a big wave",
        "Someone is surfing in the ocean",
        "The surfer's board cuts through the white water",
        "A man surfing a wave",
    ],
    "girl.jpg": [
        "A little girl in a pink dress climbs the stairs.",
        "A child in a pink t-shirt goes up a set of stairs",
        "The girl walks up the steps",
        "A young girl climbing wooden stairs",
        "A small child climbs into a wooden house .",
    ],
    "bike.jpg": [
        "A man on a bicycle jumps over a ramp.",
        "A cyclist does a trick in the air",
        "Man doing a stunt on his bike, high in the air",
        "A biker is in mid-air over a dirt ramp",
        "A boy jumps his bike",
    ],
    "snow.jpg": [
        "Two people hike up a snowy mountain.",
        "Two hikers with backpacks climb a mountain covered in snow",
        "Hikers in the snow",
        "Two men walk uphill in deep snow.",
    ],
    "ball.jpg": [
        "A boy in a blue shirt kicks a soccer ball.",
        "The boy is kicking a ball on the field",
        "Children play soccer",
        "Two boys play with a ball in the grass",
        "A boy kicks a ball",
    ],
    "pool.jpg": ["A girl jumps into a swimming pool", "A girl is jumping into the blue water."],
    "one.jpg": ["dogs"],
    "rock.jpg": [
        "A climber in a red helmet hangs from a rock.",
        "A man climbs a steep rock face",
        "A rock climber is scaling a cliff",
        "A person climbing a rock wall with ropes",
        "Man rock climbing",
    ],
    "beach.jpg": [
        "A group of friends sits on the beach at sunset.",
        "People are sitting on the sand near the ocean",
        "Four people watch the sunset at the beach",
        "Friends on a beach",
        "Several people sit in a circle on the beach.",
    ],
}
CANDIDATES = {
    "dog.jpg": "A brown dog is running through the grass",
    "surf.jpg": "A surfer rides a wave",
    "girl.jpg": "",  # nothing
    "bike.jpg": "a a a a a man man",  # repeated words
    "snow.jpg": "snow",  # one word
    "ball.jpg": "A boy kicks a ball",  # equal to a reference
    "pool.jpg": "a zebra reads yesterday's newspaper",  # nothing in common but one word
    "one.jpg": "dogs",
    "rock.jpg": "a man climbs a steep rock face while a man climbs a steep rock face with a rope",
    "beach.jpg": "the beach the ocean people on of group a",  # the words, in no order
}


def flickr8k() -> tuple[dict[str, str], Texts]:
    """The first captions of 400 images as candidates, and the others as references."""
    if not FLICKR8K.is_file():
        pytest.skip("Flickr8k is not beside the repository")
    captions: Texts = {}
    for line in FLICKR8K.read_text(encoding="utf-8").splitlines()[:2000]:
        name, text = line.split("\t")
        captions.setdefault(name.split("#")[0], []).append(text)
    return {i: c[0] for i, c in captions.items()}, {i: c[1:] for i, c in captions.items()}


def joined(candidates: dict[str, str], references: Texts) -> tuple[Texts, Texts]:
    """The same words as pycocoevalcap takes them: references first."""
    gts = {i: [" ".join(tokenize(text)) for text in references[i]] for i in candidates}
    return gts, {i: [" ".join(tokenize(text))] for i, text in candidates.items()}
