"""Captions from which a small lexicon is built, and their words."""

from __future__ import annotations

from captioner.text.tokenizer import tokenize

# One list for each image.
CAPTIONS = [
    ["A smiling boy in blue jeans and glasses stands in front of a white building .", "A boy ."],
    ["Two men and three women smile in the water .", "People wearing orange shirts are swimming ."],
    ["A group of geese swims in a pond .", "The boy 's geese jump into the water ."],
    ["A person jumps over a rock .", "The man is jumping over rocks , leaves fall on a leaf ."],
    ["Dogs run and a brown dog ran through water .", "The larger dog is running on the left ."],
    ["A dog watches its ball .", "Three dogs jump while a girl takes a photo of a t-shirt ."],
]
WORDS = sorted({word for captions in CAPTIONS for text in captions for word in tokenize(text)})
