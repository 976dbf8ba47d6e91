"""CaptionModel: transform, encoder, decoder and tokenizer, kept in one safetensors file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from captioner.decoder import Decoder, DecoderConfig
from captioner.decoding import DecodingOptions, Hypothesis, decode
from captioner.encoder import Encoder, EncoderConfig, ImageFeatures
from captioner.errors import CaptionerError
from captioner.images import read_image, to_rgb
from captioner.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID, Tokenizer, detokenize, tokenize
from captioner.transform import ImageTransform

if TYPE_CHECKING:
    import numpy as np

FILE_FORMAT = "captioner-model-1"
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


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
    """The captions of one picture, best first."""

    candidates: tuple[Candidate, ...]

    @property
    def text(self) -> str:
        """The best caption."""
        return self.candidates[0].text

    @property
    def confidence(self) -> float:
        """The best caption's confidence, in [0, 1]; see :class:`Candidate`."""
        return self.candidates[0].confidence


class CaptionModel(nn.Module):
    """A picture in, sentences out.

    Args:
        encoder: the CNN; its transform becomes the model's unless ``transform`` is given.
        decoder: the recurrent decoder; its vocabulary is the tokenizer's.
        tokenizer: the words.
        transform: how a picture becomes the encoder's input.
        provenance: where the weights come from, JSON primitives.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        tokenizer: Tokenizer,
        transform: ImageTransform | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.tokenizer = tokenizer
        self.transform = transform or encoder.transform
        self.provenance = dict(provenance or {})
        self.precision = "fp32"
        self.path: Path | None = None

    @classmethod
    def build(
        cls,
        encoder: EncoderConfig,
        decoder: DecoderConfig,
        tokenizer: Tokenizer,
        *,
        load_weights: bool = True,
    ) -> CaptionModel:
        """Make an untrained captioner on a CNN; ``load_weights=False`` leaves that untrained too."""
        cnn = Encoder(encoder, load_weights=load_weights)
        return cls(cnn, Decoder(decoder, len(tokenizer), cnn.feature_size), tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.embedding.weight.device

    @cached_property
    def sha256(self) -> str:
        """Hash of the file that the model was loaded from, in hexadecimal digits."""
        assert self.path is not None, "only a model from a file has a hash"
        return file_sha256(self.path)

    def encode(self, pixels: Tensor) -> ImageFeatures:
        """Features of pictures (B, 3, height, width), float32, computed in ``self.precision``."""
        dtype = PRECISIONS[self.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            features: ImageFeatures = self.encoder(pixels.to(self.device, non_blocking=True))
        return ImageFeatures(features.grid.float(), features.pooled.float())

    @torch.inference_mode()
    def caption(
        self,
        images: Sequence[str | Path | Image.Image | np.ndarray],
        options: DecodingOptions | None = None,
    ) -> list[CaptionResult]:
        """Caption pictures: paths, Pillow images or arrays (H, W, 3), in one batch.

        Raises:
            captioner.images.ImageError: when a picture cannot be read.
        """
        if not images:
            return []
        opened = [
            read_image(Path(image)) if isinstance(image, (str, Path)) else to_rgb(image)
            for image in images
        ]
        return self.caption_batch(torch.stack([self.transform(image) for image in opened]), options)

    @torch.inference_mode()
    def caption_batch(
        self, pixels: Tensor, options: DecodingOptions | None = None
    ) -> list[CaptionResult]:
        """Caption transformed pictures (B, 3, height, width)."""
        return self.caption_features(self.encode(pixels), options)

    @torch.inference_mode()
    def caption_features(
        self, features: ImageFeatures, options: DecodingOptions | None = None
    ) -> list[CaptionResult]:
        """Caption pictures whose features are known already."""
        options = options or DecodingOptions()
        was_training = self.training
        self.eval()
        found = decode(
            self.decoder.step,
            self.decoder.start(features),
            len(features.grid),
            options,
            bos=BOS_ID,
            eos=EOS_ID,
            forbidden=[PAD_ID, BOS_ID, UNK_ID, *self._banned_ids(options.banned_words)],
            device=self.device,
        )
        self.train(was_training)
        return [CaptionResult(tuple(map(self._candidate, image))) for image in found]

    def _banned_ids(self, banned_words: Sequence[str]) -> list[int]:
        ids = []
        for text in banned_words:
            words = tokenize(text)
            if len(words) != 1:
                raise CaptionerError(f"banned word {text!r}: give single words, one at a time")
            ids.append(self.tokenizer.id_of(words[0]))
        return ids

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
        return {
            "encoder": asdict(self.encoder.config),
            "decoder": asdict(self.decoder.config),
            "tokenizer": self.tokenizer.to_dict(),
            "transform": self.transform.to_dict(),
            "provenance": self.provenance,
        }

    @classmethod
    def from_description(
        cls, description: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> CaptionModel:
        """Build a model from :meth:`description` and its weights; nothing is downloaded.

        Raises:
            CaptionerError: when the two do not fit together.
        """
        try:
            tokenizer = Tokenizer.from_dict(description["tokenizer"])
            model = cls.build(
                EncoderConfig(**description["encoder"]),
                DecoderConfig(**description["decoder"]),
                tokenizer,
                load_weights=False,
            )
            model.transform = ImageTransform.from_dict(description["transform"])
            model.provenance = dict(description["provenance"])
            tensors = dict(state)
            if model.decoder.config.tied and "decoder.embedding.weight" in tensors:
                tensors["decoder.output.weight"] = tensors["decoder.embedding.weight"]
            model.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CaptionerError(f"not a model that this version can use: {error}") from error
        return model.eval()

    def save(self, path: str | Path, *, half: bool = True) -> None:
        """Write the one file that holds the whole model (safetensors).

        Args:
            path: the file; written under a temporary name first, then renamed.
            half: store matrices and kernels as float16; vectors (biases, BatchNorm) stay float32.

        Raises:
            CaptionerError: when the file cannot be written.
        """
        tensors = {}
        for name, tensor in self.state_dict().items():
            if name == "decoder.output.weight" and self.decoder.config.tied:
                continue
            shrink = half and tensor.is_floating_point() and tensor.ndim > 1
            tensors[name] = tensor.detach().cpu().to(torch.float16 if shrink else tensor.dtype)
        metadata = {"format": FILE_FORMAT, "model": json.dumps(self.description())}
        _replace_file(
            Path(path),
            lambda temporary: save_file(
                {name: tensor.contiguous() for name, tensor in tensors.items()},
                temporary,
                metadata,
            ),
        )

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
            raise CaptionerError(f"model {path}: no such file; `default` is the one that ships")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                # SafetensorError covers truncated and crafted files; nothing is executed.
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CaptionerError(f"model {path}: not a readable safetensors file: {error}") from error
        if metadata.get("format") != FILE_FORMAT:
            raise CaptionerError(
                f"model {path}: its format is {metadata.get('format')!r}, wanted {FILE_FORMAT!r}; "
                "make one from a checkpoint with `captioner export`"
            )
        try:
            model = cls.from_description(json.loads(metadata["model"]), _floats(state))
        except (CaptionerError, KeyError, json.JSONDecodeError) as error:
            raise CaptionerError(f"model {path}: {error}") from error
        model.path = path
        model.to(_find_device(device))
        model.precision = _find_precision(precision, model.device)
        return model


def load_model(
    path_or_name: str | Path = "default", *, device: str = "auto", precision: str = "auto"
) -> CaptionModel:
    """Load a captioner: ``default``, the one inside the package, or a file of your own.

    See :meth:`CaptionModel.load` for the options and errors.
    """
    if str(path_or_name) != "default":
        return CaptionModel.load(path_or_name, device=device, precision=precision)
    shipped = resources.files("captioner") / "weights" / "default.safetensors"
    with resources.as_file(shipped) as path:
        return CaptionModel.load(path, device=device, precision=precision)


def load_checkpoint(path: str | Path) -> CaptionModel:
    """Read the captioner out of a training checkpoint (.ckpt), without Lightning.

    Raises:
        CaptionerError: when the file is missing, unsafe or no checkpoint of a captioner.
    """
    path = Path(path)
    if not path.is_file():
        raise CaptionerError(f"checkpoint {path}: no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A pickle that would run code, a truncated file: torch has many names for "no".
        raise CaptionerError(
            f"checkpoint {path}: refused, it is not a plain checkpoint of `captioner fit`"
        ) from error
    if not isinstance(checkpoint, dict) or "captioner" not in checkpoint:
        raise CaptionerError(f"checkpoint {path}: it was not written by `captioner fit`")
    state = {
        name.removeprefix("model."): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith("model.")
    }
    return CaptionModel.from_description(checkpoint["captioner"], state)


def load_any(path: str | Path) -> CaptionModel:
    """Read a model file or a training checkpoint (.ckpt), by its suffix, onto the CPU.

    Raises:
        CaptionerError: when it cannot be read.
    """
    if Path(path).suffix == ".ckpt":
        return load_checkpoint(path)
    return CaptionModel.load(path, device="cpu")


def export_checkpoint(checkpoint: str | Path, output: str | Path) -> CaptionModel:
    """Turn a training checkpoint into a model file, and return the model read back from it.

    Raises:
        CaptionerError: when the checkpoint cannot be read or the output not be written.
    """
    load_checkpoint(checkpoint).save(output)
    return CaptionModel.load(output, device="cpu")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _floats(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n: t.float() if t.is_floating_point() else t for n, t in state.items()}


def _find_device(device: str) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise CaptionerError(f"device {device!r} cannot be used ({reason}); try cpu") from error
    return found


def _find_precision(precision: str, device: torch.device) -> str:
    if precision == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if precision not in PRECISIONS:
        raise CaptionerError(f"precision {precision!r}: use auto, {', '.join(PRECISIONS)}")
    return precision


def _replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a temporary file beside ``path``, then rename it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            write(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CaptionerError(f"cannot write {path}: {error.strerror or error}") from error
