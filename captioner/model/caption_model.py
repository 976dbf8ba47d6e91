"""CaptionModel: transform, encoder, decoder and tokenizer, kept in one safetensors file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from captioner.decoding.blanks import (
    FillOptions,
    FillResult,
    parse_blanks,
    result_of,
    search_fillings,
)
from captioner.decoding.constraints import find_constraints, known_ids
from captioner.decoding.search import DecodingOptions, Hypothesis, decode
from captioner.errors import CaptionerError
from captioner.images.reading import read_image, to_rgb
from captioner.images.transform import ImageTransform
from captioner.model.familiarity import Familiarity
from captioner.model.model_file import (
    entries_under,
    file_sha256,
    halved,
    read_model_file,
    reason_of,
    write_model_file,
)
from captioner.model.tag_head import TagHead
from captioner.model.tags import EVIDENCE_CAPTIONS, TagCalibration, caption_confidence
from captioner.networks.backbones import check_encoder_fits
from captioner.networks.cnn_graph import CnnGraph
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.networks.decoder import Decoder
from captioner.networks.decoder_steps import DecoderSteps
from captioner.networks.encoder import Encoder
from captioner.networks.fast_encoder import PRECISIONS, FastEncoder
from captioner.networks.features import ImageFeatures
from captioner.networks.pretrained import is_file_name
from captioner.networks.weights import ShapesOnly, ZerosOnly
from captioner.text.lexicon import Lemma, Lexicon
from captioner.text.tokenizer import (
    BOS_ID,
    EOS_ID,
    PAD_ID,
    SPECIAL_WORDS,
    UNK_ID,
    Tokenizer,
    detokenize,
)

KEPT_OPTIONS = ("beam_size", "max_length", "length_penalty", "no_repeat_ngram", "style")
"""Options of the search that a model file can have values of its own for."""


SHIPPED = ("default", "flickr8k")
"""Models inside the package: of the wider world, and the best one for photos like Flickr8k's."""


@dataclass(frozen=True)
class Candidate:
    """One caption of a picture.

    Attributes:
        text: the caption as people write it.
        log_prob: natural logarithm of its probability under the model, end of sentence included.
        confidence: geometric mean of its word probabilities, end of sentence included, in [0, 1].
        words: its words, as the model said them.
        word_probs: probability of every word, and of the end of the sentence where it was reached.
    """

    text: str
    log_prob: float
    confidence: float
    words: tuple[str, ...]
    word_probs: tuple[float, ...]


@dataclass(frozen=True)
class CaptionResult:
    """The captions of one picture.

    Attributes:
        candidates: those that were asked for, best first.
        considered: all that were decoded, best first: the evidence for tags and confidence; the
            candidates where there are no more.
        calibrated: the best caption's calibrated confidence; None where the model has none.
        familiarity: share in (0, 1] of held-out pictures that are at least as unlike the training
            pictures as this one (`captioner.model.familiarity`); None where the model cannot tell.
        seen: what the tag classifier sees, whether a caption says it or not: every lemma that it
            knows with a probability in [0, 1]; None where the model has no classifier.
    """

    candidates: tuple[Candidate, ...]
    considered: tuple[Candidate, ...] = ()
    calibrated: float | None = None
    familiarity: float | None = None
    seen: Mapping[Lemma, float] | None = None

    def __post_init__(self) -> None:
        if not self.considered:
            object.__setattr__(self, "considered", self.candidates)

    @property
    def text(self) -> str:
        """The best caption."""
        return self.candidates[0].text

    @property
    def confidence(self) -> float:
        """How far the best caption can be trusted, in [0, 1].

        Of a calibrated model (`captioner calibrate`): the share of the caption's content words that
        people who describe such a picture would use, as far as can be expected, and less where the
        picture is unlike those that the model learnt from; see
        :func:`captioner.model.tags.caption_confidence`. Of others, and of captions drawn at random
        or with words that were given, the geometric mean of the word probabilities,
        :attr:`Candidate.confidence`: the model's own opinion.
        """
        return self.candidates[0].confidence if self.calibrated is None else self.calibrated


class CaptionModel(nn.Module):
    """A picture in, sentences out.

    Args:
        encoder: the CNN; its transform becomes the model's unless ``transform`` is given.
        decoder: the recurrent decoder; its vocabulary is the tokenizer's.
        tokenizer: the words.
        transform: how a picture becomes the encoder's input.
        provenance: where the weights come from, JSON primitives.
        lexicon: which words make which tags; None for a model that makes none.
        tag_calibration: how far its tags can be trusted; None where nobody has measured it.
        familiarity: which pictures are like those it learnt from; None where nobody has measured.
        tag_head: classifier of the lexicon's first lemmas; None for a model without one.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        tokenizer: Tokenizer,
        transform: ImageTransform | None = None,
        provenance: Mapping[str, Any] | None = None,
        lexicon: Lexicon | None = None,
        tag_calibration: TagCalibration | None = None,
        familiarity: Familiarity | None = None,
        tag_head: TagHead | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.tokenizer = tokenizer
        self.transform = transform or encoder.transform
        self.provenance = dict(provenance or {})
        self.lexicon = lexicon
        self.tag_calibration = tag_calibration
        self.familiarity = familiarity
        self.tag_head = tag_head
        self.decoding = DecodingOptions()
        """How it captions unless it is told otherwise; the file keeps :data:`KEPT_OPTIONS`."""
        self.precision = "fp32"
        self.path: Path | None = None
        self._fast: FastEncoder | None = None
        self._steps: DecoderSteps | None = None

    @classmethod
    def build(
        cls,
        encoder: EncoderConfig,
        decoder: DecoderConfig,
        tokenizer: Tokenizer,
        *,
        load_weights: bool = True,
    ) -> CaptionModel:
        """Make an untrained captioner on a CNN, with or without that one's weights.

        Raises:
            CaptionerError: when the CNN or its weights cannot be had; see :class:`Encoder`.
        """
        cnn = Encoder(encoder, load_weights=load_weights)
        return cls(cnn, Decoder(decoder, len(tokenizer), cnn.feature_size), tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.embedding.weight.device

    @cached_property
    def sha256(self) -> str:
        """Hash of the file that the model was loaded from, in hexadecimal digits.

        Raises:
            CaptionerError: when it was not loaded from a model file.
        """
        if self.path is None:
            raise CaptionerError("only a model file has a hash: save the model and load it")
        return file_sha256(self.path)

    def encode(self, pixels: Tensor) -> ImageFeatures:
        """Features of pictures (B, 3, height, width), float32, computed in ``self.precision``.

        Without gradients: they are those of a copy that computes faster (`FastEncoder`).
        """
        return self._encoder_of_inference()(pixels)

    @property
    def encoder_engine(self) -> str:
        """What computes :meth:`encode`: ``onnxruntime`` or ``torch``."""
        return self._encoder_of_inference().engine

    def _encoder_of_inference(self) -> FastEncoder:
        if self._fast is None or not self._fast.is_current(self.encoder, self.precision):
            self._fast = FastEncoder(self.encoder, self.precision)
        return self._fast

    @torch.inference_mode()
    def caption(
        self,
        images: Sequence[str | Path | Image.Image | np.ndarray],
        options: DecodingOptions | None = None,
    ) -> list[CaptionResult]:
        """Caption pictures: paths, Pillow images or arrays (H, W, 3), in one batch.

        Raises:
            captioner.images.reading.ImageError: when a picture cannot be read.
            CaptionerError: when ``images`` is no sequence of pictures, or the options' words do
                not suit the model; see :func:`captioner.decoding.constraints.find_constraints`.
        """
        pixels = self._pixels(images, "caption")
        return [] if pixels is None else self.caption_batch(pixels, options)

    def _pixels(
        self, images: Sequence[str | Path | Image.Image | np.ndarray], method: str
    ) -> Tensor | None:
        """The pictures as this model looks at them (B, 3, height, width), None if there is none."""
        single = isinstance(images, np.ndarray) and images.ndim < 4
        if single or isinstance(images, (str, Path, Image.Image)):
            raise CaptionerError(f"{method} takes a list of pictures: write {method}([picture])")
        if len(images) == 0:
            return None
        pixels = [
            self.read(image) if isinstance(image, (str, Path)) else self.transform(to_rgb(image))
            for image in images
        ]
        return torch.stack(pixels)

    @torch.inference_mode()
    def fill(
        self,
        images: Sequence[str | Path | Image.Image | np.ndarray],
        sentence: str,
        options: FillOptions | None = None,
    ) -> list[FillResult]:
        """Find the words that are missing in a sentence, for each of some pictures.

        Args:
            images: paths, Pillow images or arrays (H, W, 3).
            sentence: such as "a ___ dog runs through the ___", one word for each blank; see
                :func:`captioner.decoding.blanks.parse_blanks`.
            options: how they are searched for.

        Raises:
            captioner.images.reading.ImageError: when a picture cannot be read.
            CaptionerError: when ``images`` is no sequence of pictures, the sentence has no blank,
                or a word of it is not in the vocabulary.
        """
        options = options or FillOptions()
        words, ids = self.check_sentence(sentence)
        pixels = self._pixels(images, "fill")
        if pixels is None:
            return []
        every_word = (*SPECIAL_WORDS, *self.tokenizer.words)
        results = []
        steps = self.decoder_steps()
        with self._evaluating():
            features = self.encode(pixels)
            for place in range(len(pixels)):
                one = ImageFeatures(*(part[place : place + 1].float() for part in features))
                found = search_fillings(
                    steps.step,
                    steps.start(one),
                    ids,
                    beam_size=options.beam_size,
                    bos=BOS_ID,
                    eos=EOS_ID,
                    never=(PAD_ID, BOS_ID, UNK_ID),
                    device=self.device,
                )
                results.append(result_of(found, words, every_word, options.top))
        return results

    def check_sentence(
        self, sentence: str
    ) -> tuple[tuple[str | None, ...], tuple[int | None, ...]]:
        """The words of a sentence with blanks, and their ids; None for each blank.

        Raises:
            CaptionerError: the sentence has no blank, or a word that is not in the vocabulary.
        """
        words = parse_blanks(sentence)
        said = [word for word in words if word is not None]
        ids = iter(known_ids(said, self.tokenizer, f"sentence {sentence!r}"))
        return words, tuple(None if word is None else next(ids) for word in words)

    def check_options(self, options: DecodingOptions) -> None:
        """Look at options before a long job.

        Raises:
            CaptionerError: when their words or their style do not suit the model.
        """
        find_constraints(options, self.tokenizer)
        self.decoder.style_numbers(options.style, 1)

    def read(self, path: str | Path) -> Tensor:
        """Read a picture as this model looks at it: float32 (3, height, width).

        Raises:
            captioner.images.reading.ImageError: when it cannot be read.
        """
        return self.transform(read_image(path, min_side=self.transform.min_side))

    @torch.inference_mode()
    def caption_batch(
        self,
        pixels: Tensor,
        options: DecodingOptions | None = None,
        streams: Sequence[int] | None = None,
        *,
        fixed_shape: bool = False,
    ) -> list[CaptionResult]:
        """Caption transformed pictures (B, 3, height, width); see :meth:`caption_features`."""
        with self._evaluating():
            features = self.encode(pixels)
            return self.caption_features(features, options, streams, fixed_shape=fixed_shape)

    @torch.inference_mode()
    def caption_features(
        self,
        features: ImageFeatures,
        options: DecodingOptions | None = None,
        streams: Sequence[int] | None = None,
        *,
        fixed_shape: bool = False,
    ) -> list[CaptionResult]:
        """Caption pictures whose features are known already.

        Args:
            features: of B pictures, of any float type and on any device.
            options: how captions are searched for.
            streams: for sampling, a number for each picture, such as its place in a folder:
                the same number and seed draw the same captions in whatever batch.
            fixed_shape: give a picture the very same numbers in every batch of one size; see
                :func:`captioner.decoding.search.decode`.

        Raises:
            CaptionerError: when the options' words do not suit the model; see
                :func:`captioner.decoding.constraints.find_constraints`.
        """
        wanted = options or self.decoding
        options = self._with_evidence(wanted)
        words = find_constraints(options, self.tokenizer)
        if len(features.grid) == 0:
            return []
        features = ImageFeatures(*(part.to(self.device, torch.float32) for part in features))
        steps = self.decoder_steps()
        with self._evaluating():
            found = decode(
                steps.step,
                steps.start(
                    features, self.decoder.style_numbers(options.style, len(features.grid))
                ),
                len(features.grid),
                options,
                bos=BOS_ID,
                eos=EOS_ID,
                forbidden=words.forbidden,
                device=self.device,
                streams=streams,
                fixed_shape=fixed_shape,
                prompt=words.prompt,
                required=words.required,
            )
        return [
            self._result(tuple(map(self._candidate, image)), wanted, familiarity, seen)
            for image, familiarity, seen in zip(
                found, self._familiarity(features), self._seen(features), strict=True
            )
        ]

    def decoder_steps(self) -> DecoderSteps:
        """The decoder word by word, with the weights that it has now."""
        if self._steps is None or not self._steps.is_current(self.decoder):
            self._steps = DecoderSteps(self.decoder)
        return self._steps

    def _familiarity(self, features: ImageFeatures) -> Sequence[float | None]:
        if self.familiarity is None:
            return [None] * len(features.pooled)
        shares: list[float | None] = self.familiarity(features.pooled).tolist()
        return shares

    def _seen(self, features: ImageFeatures) -> Sequence[Mapping[Lemma, float] | None]:
        if self.tag_head is None or self.lexicon is None:
            return [None] * len(features.pooled)
        probabilities = self.tag_head(features.pooled).tolist()  # (B, L)
        lemmas = self.lexicon.lemmas[: len(self.tag_head)]
        return [dict(zip(lemmas, row, strict=True)) for row in probabilities]

    def _with_evidence(self, options: DecodingOptions) -> DecodingOptions:
        """As many captions as tags and confidence are read from; the best one stays the same."""
        if self.lexicon is None or options.sample:
            return options
        count = max(options.num_captions, min(EVIDENCE_CAPTIONS, options.beam_size))
        return replace(options, num_captions=count)

    def _result(
        self,
        considered: tuple[Candidate, ...],
        options: DecodingOptions,
        familiarity: float | None,
        seen: Mapping[Lemma, float] | None,
    ) -> CaptionResult:
        asked = CaptionResult(
            considered[: options.num_captions], considered, familiarity=familiarity, seen=seen
        )
        # The calibration is of captions that the model chose: words put into its mouth are none.
        is_free = not (options.sample or options.prompt or options.must_include)
        if self.lexicon is None or self.tag_calibration is None or not is_free:
            return asked
        sure = caption_confidence(asked, self.lexicon, self.tag_calibration)
        return replace(asked, calibrated=sure)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Without dropout inside, whatever the mode was; the mode is restored."""
        was_training = self.training
        if was_training:
            self.eval()
        try:
            yield
        finally:
            if was_training:
                self.train()

    def _candidate(self, hypothesis: Hypothesis) -> Candidate:
        words = self.tokenizer.decode(hypothesis.ids)
        log_probs = torch.tensor(hypothesis.log_probs, dtype=torch.float64)
        return Candidate(
            text=detokenize(words),
            log_prob=hypothesis.log_prob,
            confidence=float(log_probs.mean().exp()),
            words=tuple(words),
            word_probs=tuple(log_probs.exp().tolist()),
        )

    def description(self) -> dict[str, Any]:
        """All that is needed besides the weights to build the model again, JSON primitives."""
        encoder = asdict(self.encoder.config)
        if is_file_name(encoder["weights"]):
            # Where a file lay on one machine is of no use to another, and nobody's business.
            encoder["weights"] = f"./{Path(encoder['weights']).name}"
        description: dict[str, Any] = {
            "encoder": encoder,
            "decoder": {**asdict(self.decoder.config), "styles": list(self.decoder.config.styles)},
            "tokenizer": self.tokenizer.to_dict(),
            "transform": self.transform.to_dict(),
            "provenance": self.provenance,
        }
        if kept := {
            name: getattr(self.decoding, name)
            for name in KEPT_OPTIONS
            if getattr(self.decoding, name) != getattr(DecodingOptions(), name)
        }:
            description["decoding"] = kept
        # Not all models have these three, and readers that do not know them pass over them.
        if not self.encoder.graph.needs_library:
            description["encoder_graph"] = self.encoder.graph.to_dict()
        if self.lexicon is not None:
            description["lexicon"] = self.lexicon.to_dict()
        if self.tag_calibration is not None:
            description["tag_calibration"] = self.tag_calibration.to_dict()
        return description

    @classmethod
    def from_description(
        cls, description: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> CaptionModel:
        """Build a model from :meth:`description` and its weights; nothing is downloaded.

        The two are compared first: a crafted description gets no memory that its weights do not
        take anyway.

        Raises:
            CaptionerError: when the two do not fit together, or are not of a captioner.
        """
        try:
            tokenizer = Tokenizer.from_dict(description["tokenizer"])
            encoder = EncoderConfig(**description["encoder"])
            decoder = DecoderConfig(**description["decoder"])
            transform = ImageTransform.from_dict(description["transform"])
            provenance = dict(description["provenance"])
            lexicon, tag_calibration = _read_tagging(description, tokenizer)
            tensors = dict(state)
            if decoder.tied and "decoder.embedding.weight" in tensors:
                tensors["decoder.output.weight"] = tensors["decoder.embedding.weight"]
            shapes = {name: tensor.shape for name, tensor in tensors.items()}
            graph = description.get("encoder_graph")
            graph = None if graph is None else CnnGraph.from_dict(graph)
            _check_decoder_fits(decoder, len(tokenizer), entries_under(shapes, "decoder."))
            check_encoder_fits(encoder, entries_under(shapes, "encoder."), graph)
            network = Encoder(
                encoder,
                load_weights=False,
                graph=None if graph is None else (graph, transform),
            )
            with ZerosOnly():
                words = Decoder(decoder, len(tokenizer), network.feature_size)
            model = cls(network, words, tokenizer)
            # Where another version of timm has another one, the model's own counts.
            model.transform = model.encoder.transform = transform
            model.provenance = provenance
            model.decoding = _read_decoding(description.get("decoding", {}))
            model.lexicon, model.tag_calibration = lexicon, tag_calibration
            model.familiarity = _read_familiarity(tensors, model.encoder.feature_size)
            model.tag_head = _read_tag_head(tensors, lexicon, model.encoder.feature_size)
            _check_values(model.state_dict(), tensors)
            model.load_state_dict(tensors)
        except KeyError as error:
            raise CaptionerError(
                f"not a model that this version can use: {reason_of(error)} is missing"
            ) from error
        except (TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
            raise CaptionerError(
                f"not a model that this version can use: {reason_of(error)}"
            ) from error
        return model.eval()

    def save(self, path: str | Path, *, half: bool = True) -> None:
        """Write the one file that holds the whole model (safetensors).

        Args:
            path: the file; written under a temporary name first, then renamed.
            half: store matrices and kernels as float16; vectors (biases, BatchNorm) stay float32,
                and so does a matrix with a value beyond float16's range.

        Raises:
            CaptionerError: when the file cannot be written.
        """
        tensors = {}
        for name, tensor in self.state_dict().items():
            if name == "decoder.output.weight" and self.decoder.config.tied:
                continue
            stored = tensor.detach().cpu().contiguous()
            tensors[name] = halved(stored) if half else stored
        write_model_file(Path(path), self.description(), tensors)

    @classmethod
    def load(
        cls, path: str | Path, *, device: str = "auto", precision: str = "auto"
    ) -> CaptionModel:
        """Read a model file. No network, no second file and no pickle are involved.

        Args:
            path: a file that :meth:`save` wrote.
            device: ``auto`` (CUDA, then Apple's MPS, then CPU) or a torch device.
            precision: of the encoder: ``fp32``, ``bf16``, ``fp16``, or ``auto`` (bf16 on CUDA
                devices that have it, fp32 elsewhere). The decoder computes in fp32.

        Raises:
            CaptionerError: when the file is missing, damaged or no captioner model.
        """
        path = Path(path)
        if not path.is_file():
            raise CaptionerError(
                f"model {path}: no such file; `default` is the model that ships with captioner, "
                "and `flickr8k` the one that knows people and dogs"
            )
        found = _find_device(device)
        found_precision = _find_precision(precision, found)
        description, state = read_model_file(path)
        try:
            model = cls.from_description(description, state)
        except CaptionerError as error:
            raise CaptionerError(f"model {path}: {reason_of(error)}") from error
        model.path = path
        model.to(found)
        model.precision = found_precision
        return model


def load_model(
    path_or_name: str | Path = "default", *, device: str = "auto", precision: str = "auto"
) -> CaptionModel:
    """Load a captioner: one of :data:`SHIPPED`, or a file of your own.

    See :meth:`CaptionModel.load` for the options and errors.
    """
    name = str(path_or_name)
    if name not in SHIPPED:
        return CaptionModel.load(path_or_name, device=device, precision=precision)
    shipped = resources.files("captioner") / "weights" / f"{name}.safetensors"
    if not shipped.is_file():
        raise CaptionerError(
            f"model {name}: this installation has no weights/{name}.safetensors; reinstall "
            "captioner, or give a model file"
        )
    with resources.as_file(shipped) as path:
        model = CaptionModel.load(path, device=device, precision=precision)
        _ = model.sha256  # Out of a zipped package, the file is gone later.
    return model


def _read_decoding(kept: Mapping[str, Any]) -> DecodingOptions:
    """The model's own way of captioning.

    Raises:
        ValueError: an option is not one that a file keeps, or has a value that cannot be used.
    """
    if unknown := sorted(set(kept) - set(KEPT_OPTIONS)):
        raise ValueError(f"decoding has the unknown option {unknown[0]!r}")
    return DecodingOptions(**kept)


def _read_tagging(
    description: Mapping[str, Any], tokenizer: Tokenizer
) -> tuple[Lexicon | None, TagCalibration | None]:
    """The parts that a model needs for tags only, None where a description lacks them."""
    lexicon, calibration = description.get("lexicon"), description.get("tag_calibration")
    return (
        None if lexicon is None else Lexicon.from_dict(lexicon, tokenizer.words),
        None if calibration is None else TagCalibration.from_dict(calibration),
    )


def _read_familiarity(state: Mapping[str, Tensor], feature_size: int) -> Familiarity | None:
    """The part that tells strange pictures, None where the tensors have none."""
    tensors = entries_under(state, "familiarity.")
    if not tensors:
        return None
    found = Familiarity.from_state(tensors)
    if len(found.mean) != feature_size:
        raise ValueError(
            f"its familiarity is of {len(found.mean)} features, the encoder has {feature_size}"
        )
    return found


def _read_tag_head(
    state: Mapping[str, Tensor], lexicon: Lexicon | None, feature_size: int
) -> TagHead | None:
    """The classifier of lemmas, None where the tensors have none."""
    tensors = entries_under(state, "tag_head.")
    if not tensors:
        return None
    found = TagHead.from_state(tensors)
    known = 0 if lexicon is None else len(lexicon)
    if len(found) > known or found.linear.in_features != feature_size:
        raise ValueError(
            f"its tag classifier is of {len(found)} lemmas and {found.linear.in_features} features,"
            f" the lexicon has {known} and the encoder {feature_size}"
        )
    return found


def _check_decoder_fits(
    config: DecoderConfig, vocab_size: int, shapes: Mapping[str, torch.Size]
) -> None:
    """Compare a file's tensors with the decoder they are said to be of, before it takes memory."""
    wrong = ["rnn"] if config.layers > len(shapes) else []
    if not wrong:
        feature_size = shapes["pooled_projection.weight"][-1:].numel()
        with ShapesOnly():
            wanted = Decoder(config, vocab_size, feature_size).state_dict()
        wrong = [name for name, tensor in wanted.items() if shapes.get(name) != tensor.shape]
    if wrong:
        raise ValueError(
            f"tensors of the decoder are missing or of another shape ({', '.join(wrong[:3])})"
        )


def _check_values(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that would load, but not as what they are or without making sense."""
    for name, tensor in tensors.items():
        model_has = wanted.get(name)
        if model_has is not None and tensor.is_floating_point() != model_has.is_floating_point():
            raise ValueError(f"{name} is of type {tensor.dtype}, wanted {model_has.dtype}")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"a value of {name} is not finite: the file is damaged")


def _find_device(device: str) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()  # "meta" makes tensors, but nothing to read
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise CaptionerError(
            f"device {device!r} cannot be used ({reason}); use auto, cpu, cuda or mps"
        ) from error
    return found


def _find_precision(precision: str, device: torch.device) -> str:
    if precision == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if precision not in PRECISIONS:
        raise CaptionerError(f"precision {precision!r}: use one of auto, {', '.join(PRECISIONS)}")
    return precision


def describe_model(model: CaptionModel) -> dict[str, Any]:
    """What tells a model from others, JSON primitives.

    Raises:
        CaptionerError: it was not loaded from a file.
    """
    tags = "none" if model.lexicon is None else "raw"
    if model.lexicon is not None and model.tag_calibration is not None:
        tags = "calibrated"
    return {
        "sha256": model.sha256,
        "encoder": model.encoder.config.name,
        "tag_confidence": tags,
    }
