"""CaptionModel: transform, encoder, decoder and tokenizer, kept in one safetensors file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from captioner.decoding.blanks import FillResult, fill_each
from captioner.decoding.constraints import find_constraints, read_sentence
from captioner.decoding.hypotheses import Hypothesis
from captioner.decoding.options import DecodingOptions, FillOptions
from captioner.decoding.rules import OpenStep, S
from captioner.decoding.search import decode
from captioner.errors import CaptionerError
from captioner.images.partial import PARTIAL
from captioner.images.reading import read_image
from captioner.images.transform import ImageTransform
from captioner.model.choices import check_model_file
from captioner.model.description import check_values, describe, read_parts
from captioner.model.device import find_device, find_precision
from captioner.model.familiarity import Familiarity
from captioner.model.given_images import AnImage, is_single, pixels_of
from captioner.model.guidance import GuidedSteps
from captioner.model.model_file import (
    file_sha256,
    halved,
    read_model_file,
    reason_of,
    write_model_file,
)
from captioner.model.other_languages import add_other_languages, check_other_languages
from captioner.model.results import CaptionResult, results_of
from captioner.model.tag_head import TagHead
from captioner.model.tags import TagCalibration, with_evidence
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.networks.decoder import Decoder
from captioner.networks.encoder import Encoder
from captioner.networks.fast_encoder import FastEncoder
from captioner.networks.fast_steps import FastSteps, current_steps
from captioner.networks.features import ImageFeatures
from captioner.networks.int8 import Int8
from captioner.networks.weights import evaluating
from captioner.text.lexicon import Lexicon
from captioner.text.tokenizer import BOS_ID, EOS_ID, SPECIAL_WORDS, Tokenizer


class CaptionModel(nn.Module):
    """An image in, sentences out.

    Args:
        encoder: the CNN; its transform becomes the model's unless ``transform`` is given.
        decoder: the recurrent decoder; its vocabulary is the tokenizer's.
        tokenizer: the words.
        transform: how an image becomes the encoder's input.
        provenance: where the weights come from, JSON primitives.
        lexicon: which words make which tags; None for a model that makes none.
        tag_calibration: how far its tags can be trusted; None where nobody has measured it.
        familiarity: which images are like those it learnt from; None where nobody has measured.
        tag_head: classifier of the lexicon's first lemmas; None for a model without one.
        int8: what its CNN needs for int8; None where nobody has measured it.
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
        int8: Int8 | None = None,
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
        self.int8 = int8
        self.decoding = DecodingOptions()
        """Its default options; the file keeps `KEPT_OPTIONS`."""
        self.precision = "fp32"
        self.path: Path | None = None
        self.is_language = False
        """Whether its file adds a language to another model, whose CNN it shares."""
        self.others: tuple[CaptionModel, ...] = ()
        """Captioners in other languages with the same CNN, whose captions are wanted as well."""
        self._fast: FastEncoder | None = None
        self._steps: FastSteps | None = None
        self._guided: GuidedSteps | None = None

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

    @property
    def language(self) -> str:
        """Of the captions, a BCP 47 tag."""
        return self.tokenizer.language

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
        """Features, float32, computed in ``self.precision``.

        Without gradients: they are those of a copy that computes faster (`FastEncoder`).

        Args:
            pixels: images (B, 3, height, width), uint8 as :meth:`read` and `ImageTransform.pixels`
                give them, or float32 as the transform scales them.
        """
        return self.fast_encoder()(pixels)

    @property
    def encoder_engine(self) -> str:
        """What computes :meth:`encode`: ``onnxruntime`` or ``torch``."""
        return self.fast_encoder().engine

    def fast_encoder(self) -> FastEncoder:
        """The encoder of inference, with the weights that it has now."""
        if self._fast is None or not self._fast.is_current(self.encoder, self.precision):
            self._fast = FastEncoder(self.encoder, self.precision, self.int8)
        return self._fast

    @overload
    def caption(  # type: ignore[overload-overlap]
        self, images: AnImage, options: DecodingOptions | None = None
    ) -> CaptionResult: ...

    @overload
    def caption(
        self, images: Iterable[AnImage], options: DecodingOptions | None = None
    ) -> list[CaptionResult]: ...

    @torch.inference_mode()
    def caption(
        self, images: AnImage | Iterable[AnImage], options: DecodingOptions | None = None
    ) -> CaptionResult | list[CaptionResult]:
        """Caption images in one batch: one image gives one result, several give a list.

        Args:
            images: paths, Pillow images or arrays (H, W, 3); an array (B, H, W, 3) is several.
            options: how captions are searched for; the model's own way otherwise.

        Raises:
            captioner.images.reading.ImageError: when an image cannot be read.
            CaptionerError: when ``images`` are no images, or the options' words do not suit the
                model; see :func:`captioner.decoding.constraints.find_constraints`.
        """
        pixels = pixels_of(images, self.transform, self.read)
        results = self.caption_batch(pixels, options) if len(pixels) else []
        return results[0] if is_single(images) else results

    @overload
    def fill(  # type: ignore[overload-overlap]
        self, images: AnImage, sentence: str, options: FillOptions | None = None
    ) -> FillResult: ...

    @overload
    def fill(
        self, images: Iterable[AnImage], sentence: str, options: FillOptions | None = None
    ) -> list[FillResult]: ...

    @torch.inference_mode()
    def fill(
        self,
        images: AnImage | Iterable[AnImage],
        sentence: str,
        options: FillOptions | None = None,
    ) -> FillResult | list[FillResult]:
        """Fill in the blanks of a sentence for each image; one image gives one result.

        Args:
            images: see :meth:`caption`.
            sentence: such as "a ___ dog runs through the ___", one word for each blank; see
                :func:`captioner.decoding.sentences.parse_blanks`.
            options: how they are searched for.

        Raises:
            captioner.images.reading.ImageError: when an image cannot be read.
            CaptionerError: when ``images`` are no images, the sentence has no blank, or a word of
                it is not in the vocabulary.
        """
        options = options or FillOptions()
        words, ids = read_sentence(sentence, self.tokenizer)
        pixels = pixels_of(images, self.transform, self.read)
        if not len(pixels):
            return []
        steps = self.decoder_steps()
        with evaluating(self):
            features = self.encode(pixels)
            starts = (
                steps.start(ImageFeatures(*(part[n : n + 1].float() for part in features)))
                for n in range(len(pixels))
            )
            every_word = (*SPECIAL_WORDS, *map(self.tokenizer.written, self.tokenizer.words))
            join = self.tokenizer.detokenize
            found = fill_each(
                steps.step, starts, words, ids, every_word, options, self.device, join
            )
        return found[0] if is_single(images) else found

    def check_options(self, options: DecodingOptions) -> None:
        """Look at options before a long job.

        Raises:
            CaptionerError: when their words, their style or their weight of tags do not suit it.
        """
        if options.tag_weight not in (0, self.decoding.tag_weight) and self.tag_head is None:
            raise CaptionerError(
                f"tag_weight={options.tag_weight}: the model has no tag classifier; "
                "`captioner calibrate` fits one, or leave --tag-weight out"
            )
        find_constraints(options, self.tokenizer)
        self.decoder.style_numbers(options.style, 1)
        check_other_languages(self, options)

    def read(self, path: str | Path, data: bytes | None = None) -> Tensor:
        """Read a file, or its ``data``, as this model looks at it: uint8 (3, height, width).

        Raises:
            captioner.images.reading.ImageError: when it cannot be read.
        """
        image = read_image(path, min_side=self.transform.min_side, data=data)
        return self.transform.pixels(image)

    def read_partial(self, path: str | Path, data: bytes | None = None) -> tuple[Tensor, bool]:
        """Read what `read` does, an image that is cut short as far as it goes.

        Returns:
            What `read` returns, and whether the image is cut short.

        Raises:
            captioner.images.reading.ImageError: when nothing of it can be read.
        """
        image = read_image(path, min_side=self.transform.min_side, may_be_partial=True, data=data)
        return self.transform.pixels(image), PARTIAL in image.info

    @torch.inference_mode()
    def caption_batch(
        self,
        pixels: Tensor,
        options: DecodingOptions | None = None,
        streams: Sequence[int] | None = None,
        *,
        fixed_shape: bool = False,
    ) -> list[CaptionResult]:
        """Caption images (B, 3, height, width); see :meth:`encode`, :meth:`caption_features`."""
        with evaluating(self):
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
        """Caption images whose features are known already.

        Args:
            features: of B images, of any float type and on any device.
            options: how captions are searched for.
            streams: for sampling, a number for each image, such as its place in a folder:
                the same number and seed draw the same captions in whatever batch.
            fixed_shape: give an image the same numbers in its row of every batch of one size; see
                :func:`captioner.decoding.search.decode`.

        Raises:
            CaptionerError: when the options' words do not suit the model; see
                :func:`captioner.decoding.constraints.find_constraints`.
        """
        wanted = options or self.decoding
        options = wanted if self.lexicon is None else with_evidence(wanted)
        words = find_constraints(options, self.tokenizer)
        if len(features.grid) == 0:
            return []
        features = ImageFeatures(*(part.to(self.device, torch.float32) for part in features))
        styles = self.decoder.style_numbers(options.style, len(features.grid))

        def search(step: OpenStep[S], state: S) -> list[list[Hypothesis]]:
            return decode(
                step,
                state,
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
                joining=words.joining,
            )

        steps, guided = self.decoder_steps(), self._guided_steps(options)
        with evaluating(self):
            if guided is None:
                found = search(OpenStep(steps.step_open), steps.start(features, styles))
            else:
                found = search(OpenStep(guided.step_open), guided.start(features, styles))
        results = results_of(self, found, features.pooled, wanted)
        if not self.others:
            return results

        def in_another(other: CaptionModel, options: DecodingOptions) -> list[CaptionResult]:
            return other.caption_features(features, options, streams, fixed_shape=fixed_shape)

        return add_other_languages(self, results, wanted, in_another)

    def _guided_steps(self, options: DecodingOptions) -> GuidedSteps | None:
        if not options.tag_weight or self.tag_head is None or self.lexicon is None:
            return None
        parts = self.decoder_steps(), self.tag_head, self.lexicon, options.tag_weight
        if self._guided is None or self._guided.parts != parts:
            self._guided = GuidedSteps(*parts)
        return self._guided

    def decoder_steps(self) -> FastSteps:
        """The decoder word by word, with the weights that it has now."""
        self._steps = current_steps(self._steps, self.decoder, self.precision)
        return self._steps

    def description(self) -> dict[str, Any]:
        """All that it takes, with the weights, to build the model again, JSON primitives."""
        return describe(self)

    @classmethod
    def from_description(
        cls, description: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> CaptionModel:
        """Build a model from :meth:`description` and its weights; nothing is downloaded.

        Raises:
            CaptionerError: when the two do not fit together, or are not of a captioner.
        """
        try:
            parts = read_parts(description, state)
            model = cls(*parts[:10])
            model.decoding = parts.decoding
            check_values(model.state_dict(), parts.tensors)
            model.load_state_dict(parts.tensors)
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
            precision: of the encoder: ``fp32``, ``bf16``, ``fp16``, ``int8`` (on CPUs, with ONNX
                Runtime), or ``auto`` (bf16 on CUDA devices that have it, fp32 elsewhere). The
                decoder computes in int8 with it, else in fp32.

        Raises:
            CaptionerError: when the file is missing, damaged or no captioner model, or cannot be
                computed on this device or in this precision.
        """
        path = Path(path)
        check_model_file(path)
        found = find_device(device)
        found_precision = find_precision(precision, found)
        description, state = read_model_file(path)
        try:
            model = cls.from_description(description, state)
        except CaptionerError as error:
            raise CaptionerError(f"model {path}: {reason_of(error)}") from error
        model.path = path
        model.to(found)
        model.precision = found_precision
        if found_precision == "int8":
            model.fast_encoder()  # What it lacks is said before anything is begun.
        return model
