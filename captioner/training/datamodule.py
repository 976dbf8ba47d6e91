"""The data of a training: sources, splits, vocabulary, and what is kept of frozen layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from captioner.data.datasets import DEV_FRACTION, CaptionData, Example
from captioner.data.holdout import hold_out
from captioner.data.sources import (
    TEXT,
    DataSource,
    check_no_photo_twice,
    language_of_sources,
    load_source,
    sources_of,
    styles_of,
)
from captioner.data.streams import Stream, is_streamed
from captioner.errors import CaptionerError
from captioner.files.writing import default_cache_dir
from captioner.model.caption_model import CaptionModel
from captioner.model.device import torch_threads
from captioner.model.new_language import start_language
from captioner.networks.configs import EncoderConfig
from captioner.networks.encoder import Encoder
from captioner.text.languages import DEFAULT_LANGUAGE
from captioner.text.lexicon import LANGUAGE, Lexicon
from captioner.text.lexicon_languages import build_lexicon_of
from captioner.text.segmentation import choose_segmentation
from captioner.text.tokenizer import Tokenizer
from captioner.training.batches import (
    CaptionedImages,
    EpochSampler,
    KeptViews,
    LazyLoader,
    Part,
    RandomView,
    SeveralSources,
    collate,
)
from captioner.training.feature_cache import FeatureCache
from captioner.training.imagined import check_imagine, imagine_images
from captioner.training.start import load_start, load_weights, styles_of_start, teach_new_words
from captioner.training.stream_set import StreamSet, batches_seen, check_stream, load_validation


class CaptionDataModule(pl.LightningDataModule):
    """Data for training: finds the captions, makes the vocabulary, keeps a frozen CNN's features.

    Args:
        root: the data's folder, or its annotation file; see data/README.md for the layouts. It is
            the only source then; ``sources`` names several. A pattern or an address, such as
            ``s3://bucket/{0000..0099}.tar``, names archives or tables that are streamed: read
            again in every epoch, and not kept.
        format: ``auto``, or one of ``captioner.data.datasets.FORMATS``.
        images: the image folder, where it is not beside the annotations.
        sources: several data sets, each with its weight and its style; instead of ``root``.
        objective: what is learnt (linked to ``model.objective`` by the command line).
        imagine: with ``language``, photos are seen, and with sentences that have none a grid of
            features composed of those of photos whose captions name the same.
        encoder: the CNN (linked to ``model.encoder`` by the command line).
        init_from: a shipped model's name, a model file or a checkpoint, whose words, and whose
            encoder where that is frozen, are used instead of new ones (linked to
            ``model.init_from`` by the command line).
        min_count: a word must occur this often in the training captions to be learnt. Those that
            ``init_from`` knows are kept however rare they are; others are added to them, except
            with ``self_critical``, which teaches no words.
        language: of the captions, a BCP 47 tag such as ``de``, where a source does not name it;
            null: that of ``init_from``, or English. Where ``init_from`` has another one, all but
            its words is taken from it, and new words are learnt.
        segmentation: how captions become words: ``words`` or ``characters``, for Chinese; null for
            the language's own way.
        lexicon: for the tags that the model can make: ``en``, of the captions' language (English,
            Chinese, German or Arabic); ``none`` for a model without tags. ``init_from``'s lexicon
            is used where it has one in this language, with the new words added.
        max_words: longer training captions are cut.
        batch_size: images in a batch of each process; each comes with all its captions.
        augment: train on random views instead of the whole image. Their features cannot be kept:
            with a frozen encoder too, it then works in every step, unless ``views`` says otherwise.
        views: with ``augment``, draw this many views of each image once and keep what the frozen
            part of the encoder gives for them; epochs take turns. 0: new views in every epoch.
            Without ``augment``, 1 keeps what the frozen part gives for the whole image.
        min_area: smallest share of the image that such a view shows.
        dev_fraction: share of the images held out for validation where the data has no dev split.
            Which ones depends on their names alone, so that runs with other seeds compare.
        cache_dir: where features of a frozen encoder are kept; default ``~/.cache/captioner``.
        workers: processes that read images; 0 reads in the main process.
        seed: of shuffling and augmentation; the command line links it to ``seed_everything``.
        sidecar_suffix: what the text files beside the images end in, where it is not ``.txt``.
        val_root: the data that validates a training on a stream, and is small: a folder or a file
            as for ``root``, whose dev split it is, or all of it where it has no splits; or a
            pattern or an address.
        shuffle_window: of a stream, each worker draws the next image among so many, which it holds
            in memory as files; the order of the archives or tables is random as well.

    Raises:
        CaptionerError: when an option has a value that cannot be used.
    """

    def __init__(
        self,
        root: str | None = None,
        format: str = "auto",  # noqa: A002 - the option's name on the command line
        images: str | None = None,
        sources: list[DataSource] | None = None,
        objective: str = "cross_entropy",
        encoder: EncoderConfig | None = None,
        init_from: str | None = None,
        min_count: int = 5,
        language: str | None = None,
        segmentation: str | None = None,
        lexicon: str = LANGUAGE,
        max_words: int = 20,
        batch_size: int = 32,
        augment: bool = False,
        views: int = 0,
        min_area: float = 0.6,
        dev_fraction: float = DEV_FRACTION,
        cache_dir: str | None = None,
        workers: int = 0,
        seed: int = 0,
        sidecar_suffix: str | None = None,
        val_root: str | None = None,
        shuffle_window: int = 2000,
        imagine: bool = False,
    ) -> None:
        super().__init__()
        for name, value, minimum in (
            ("min_count", min_count, 1),
            ("max_words", max_words, 1),
            ("batch_size", batch_size, 1),
            ("workers", workers, 0),
            ("views", views, 0),
            ("shuffle_window", shuffle_window, 1),
        ):
            if value < minimum:
                raise CaptionerError(f"data.{name}={value}: must be at least {minimum}")
        if not 0 < min_area <= 1:
            raise CaptionerError(f"data.min_area={min_area}: must be above 0 and at most 1")
        if not 0 < dev_fraction < 1:
            raise CaptionerError(f"data.dev_fraction={dev_fraction}: must be between 0 and 1")
        if lexicon not in (LANGUAGE, "none"):
            raise CaptionerError(f"data.lexicon={lexicon}: use one of {LANGUAGE}, none")
        if views > 1 and not augment:
            raise CaptionerError(f"data.views={views}: without data.augment there is only one view")
        encoder = encoder or EncoderConfig()
        if imagine:
            keeps = views > 0 or not augment
            check_imagine(objective, frozen=encoder.frozen, keeps_features=keeps)
        self.streamed: StreamSet | None = None
        """The training split, where the sources only validate."""
        if root is not None and is_streamed(root):
            self.streamed = StreamSet(root, format, batch_size, workers, shuffle_window, seed)
            others = {"sources": sources, "images": images, "sidecar_suffix": sidecar_suffix}
            self.sources = [check_stream(val_root, objective, views, **others)]
        elif val_root is not None:
            raise CaptionerError(
                f"data.val_root={val_root}: validates what is streamed; other data has a dev "
                "split, or some of it is held out"
            )
        else:
            self.sources = sources_of(root, format, images, sources, sidecar_suffix)
        self.styles = styles_of(self.sources)
        self.language = language_of_sources(self.sources, language) or DEFAULT_LANGUAGE
        self.has_language = any((language, *(source.language for source in self.sources)))
        choose_segmentation(self.language, segmentation)  # which refuses other values
        self.segmentation = segmentation
        self.objective, self.imagine = objective, imagine
        self.views = views
        self.encoder_config = encoder
        self.init_from = init_from
        self.min_count, self.max_words = min_count, max_words
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.view = RandomView(min_area, seed) if augment else None
        self.dev_fraction = dev_fraction
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
        self.data: dict[str, CaptionData] = {}
        """What each source holds, by the source's name."""
        self.initial: CaptionModel | None = None
        self.tokenizer: Tokenizer
        self.has_lexicon = lexicon != "none"
        self.lexicon: Lexicon | None = None
        self.encoder_weights: dict[str, Tensor] = {}
        """Weights of the frozen encoder that the cached features come from."""
        self.examples: dict[str, list[Example]] = {}
        self.parts: dict[str, list[Part]] = {}
        """Where each source's images lie in ``examples``."""
        self.stream: Stream | None = None
        self._datasets: dict[str, SeveralSources] = {}

    def prepare_data(self) -> None:
        """Do all that :meth:`setup` does in the first process of a machine, before the others do.

        They wait, however long the features take; then they find these. The processors are its own.
        """
        assert self.trainer is not None and self.trainer.state.fn is not None
        with torch_threads(torch.get_num_threads() * max(1, self.trainer.num_devices)):
            self.setup(self.trainer.state.fn.value)

    def setup(self, stage: str) -> None:
        """Read the captions and, for a frozen encoder, make sure that its features are there."""
        if not self.data:
            self.data = self._load()
        if self.init_from and self.initial is None:
            self.initial = load_start(self.init_from, frozen=self.encoder_config.frozen)
            if not self.has_language:
                self.language = self.initial.language
            if not self._starts_language:
                self.styles = styles_of_start(self.initial, self.styles, self.init_from)
        wanted = {"fit": ("train", "dev"), "validate": ("dev",), "test": ("test",)}[stage]
        # The vocabulary comes from the training captions, whatever the stage.
        for split in dict.fromkeys(("train", *wanted)):
            if split not in self.examples and not self._is_streamed(split):
                self._collect(split, needed=split in wanted)
        if not hasattr(self, "tokenizer"):
            self.tokenizer = self._make_tokenizer()
        if stage == "fit" and self.lexicon is None:
            self.lexicon = self._make_lexicon()
        kept = [split for split in wanted if not self._is_streamed(split)]
        missing = [split for split in kept if split not in self._datasets]
        if not missing:
            return
        encoder = self._make_encoder()
        self._transform = encoder.transform
        for split in missing:
            parts = self.parts[split]
            datasets = [self._dataset(encoder, split, part) for part in parts]
            if self.imagine:
                texts = [self._is_text(part.source) for part in parts]
                imagine_images(self.initial, datasets, texts)
            self._datasets[split] = SeveralSources(datasets)

    def train_dataloader(self) -> LazyLoader:
        """Shuffled batches of the training split."""
        if self.streamed is not None and self.stream is not None:
            return self.streamed.loader(
                self.stream,
                self.tokenizer,
                self._transform,
                max_words=self.max_words,
                view=self.view,
                trainer=self.trainer,
            )
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> LazyLoader:
        """Batches of the dev split, in its order."""
        return self._loader("dev", shuffle=False)

    def test_dataloader(self) -> LazyLoader:
        """Batches of the test split, in its order."""
        return self._loader("test", shuffle=False)

    def state_dict(self) -> dict[str, Any]:
        """What a run that streams is to be resumed with."""
        return self.streamed.order if self.streamed is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to resume a run that streams in another order."""
        if self.streamed is not None and self.trainer is not None and self.trainer.training:
            self.streamed.check_resumed(state_dict)

    @property
    def training_size(self) -> tuple[int, int]:
        """Number of training images and of their captions; of a large stream, some of these."""
        captions = self._photo_captions()
        images = len(captions) if self.stream is None else self.stream.images
        return images, sum(map(len, captions))

    def _is_streamed(self, split: str) -> bool:
        return split == "train" and self.streamed is not None

    @property
    def _starts_language(self) -> bool:
        """Whether the model to start from has to learn another language."""
        return self.initial is not None and self.initial.tokenizer.language != self.language

    def _load(self) -> dict[str, CaptionData]:
        if self.streamed is not None:
            first = self.trainer is None or self.trainer.is_global_zero
            self.stream = self.streamed.open(self.cache_dir, progress=first)
            return {self.sources[0].name: load_validation(self.sources[0])}
        several = len(self.sources) > 1
        loaded = {each.name: load_source(each, prefix=several) for each in self.sources}
        if several:
            check_no_photo_twice([data.examples for data in loaded.values()])
        # Of several sources, those with a dev split of their own validate for all.
        images = {name: data for name, data in loaded.items() if data.format != TEXT}
        loaded |= hold_out(images, self.dev_fraction, prefixed=several)
        for name, data in loaded.items():
            called = name if several else data.root
            for warning in data.warnings:
                rank_zero_info(f"{called}: {warning}")
            counts = ", ".join(f"{split} {count}" for split, count in data.splits.items())
            rank_zero_info(f"{called}: {data.format} data, images: {counts}")
        return loaded

    def _collect(self, split: str, *, needed: bool) -> None:
        """Lay the sources' images of one split one after the other."""
        examples: list[Example] = []
        parts: list[Part] = []
        for source in self.sources:
            data = self.data[source.name]
            found = [each for each in data.examples if each.split == split]
            if split == "train":
                found = self._used(source, found)
            if found:
                parts.append(Part(len(examples), len(found), source))
                examples += found
        if not examples and needed:
            # The error that a data set gives when it is asked for what it lacks.
            self.data[self.sources[0].name].split(split)
        if examples:
            self.examples[split], self.parts[split] = examples, parts

    def _used(self, source: DataSource, examples: list[Example]) -> list[Example]:
        """The training images of a source that this objective learns from."""
        if (self._is_text(source) and self.objective != "language") or (
            self.objective == "self_critical" and not source.rewards
        ):
            return []
        return [each for each in examples if len(each.captions) >= source.min_captions]

    def _is_text(self, source: DataSource) -> bool:
        return self.data[source.name].format == TEXT

    def _make_tokenizer(self) -> Tokenizer:
        captions = self._photo_captions()
        if self.initial is None or self._starts_language:
            tokenizer = Tokenizer.build(
                [text for each in captions for text in each],
                self.min_count,
                self.language,
                self.segmentation,
            )
            if self.initial is not None:
                start_language(self.initial, tokenizer, self.styles)
            return tokenizer
        if self.objective != "self_critical":
            teach_new_words(self.initial, captions, self.min_count)
        return self.initial.tokenizer

    def _photo_captions(self) -> list[tuple[str, ...]]:
        """The captions of each training photo: it shall not say what no photo shows."""
        if self.stream is not None:
            return list(self.stream.captions)
        return [
            example.captions
            for part in self.parts.get("train", [])
            if not self._is_text(part.source)
            for example in self.examples["train"][part.first : part.first + part.size]
        ]

    def _make_lexicon(self) -> Lexicon | None:
        if not self.has_lexicon:
            return None
        if self.initial is not None and self.initial.lexicon is not None:
            return self.initial.lexicon
        captions = self._photo_captions()
        count = sum(map(len, captions))
        if count >= 10_000:  # from here on somebody waits and wonders: about 1,500 a second
            rank_zero_info(f"{count} captions are tagged for the lexicon")
        return build_lexicon_of(self.tokenizer, captions)

    def _make_encoder(self) -> Encoder:
        """The encoder in the state that training begins with."""
        encoder = Encoder(self.encoder_config, load_weights=self.initial is None).eval()
        if self.initial is not None:
            load_weights(encoder, self.initial.encoder, f"init_from={self.init_from}")
        if self.encoder_config.frozen:
            self.encoder_weights = encoder.state_dict()
        return encoder

    def _dataset(self, encoder: Encoder, split: str, part: Part) -> CaptionedImages:
        examples = self.examples[split][part.first : part.first + part.size]
        style = self.styles.index(part.source.style) if part.source.style else 0
        view = self.view if split == "train" else None
        common: dict[str, Any] = {"max_words": self.max_words, "style": style, "seed": self.seed}
        if self.objective == "language" and (not self.imagine or self._is_text(part.source)):
            cache = np.broadcast_to(np.float16(0), (len(examples), 1, encoder.feature_size))
        elif self.views == 0 and (view is not None or not self.encoder_config.frozen):
            cache = None
        else:
            views = part.source.views or self.views if view is not None else 1
            cache = self._features(encoder, f"{part.source.name}, {split}", examples, view, views)
            common["views"] = views
        if split == "train":
            common["captions"] = part.source.captions
        return CaptionedImages(
            examples, self.tokenizer, encoder.transform, view=view, cache=cache, **common
        )

    def _features(
        self,
        encoder: Encoder,
        what: str,
        examples: Sequence[Example],
        view: RandomView | None,
        views: int,
    ) -> np.ndarray:
        if not self.encoder_config.frozen and not encoder.frozen_layers:
            raise CaptionerError(
                f"data.views={self.views}: nothing of {self.encoder_config.name} stays frozen and "
                "can be kept; use 0, or a number for model.encoder.trainable"
            )
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        paths = [example.path for example in examples]
        kept = None if view is None else KeptViews(view, examples)
        cache = FeatureCache(self.cache_dir, encoder.to(device), paths, kept, views)
        if not cache.complete:
            rank_zero_info(
                f"{what}: features of {len(paths)} images are computed once and kept in "
                f"{cache.folder} ({cache.size_bytes / 1e9:.1f} GB)"
            )
        return cache.open(progress=self.trainer is None or self.trainer.is_global_zero)

    def _loader(self, split: str, *, shuffle: bool) -> LazyLoader:
        dataset = self._datasets[split]

        def start() -> int:
            return batches_seen(self.trainer) * self.batch_size if split == "train" else 0

        sampler = EpochSampler(
            self.parts[split],
            self.seed,
            shuffle,
            start,
            rank=self.trainer.global_rank if self.trainer else 0,
            processes=self.trainer.world_size if self.trainer else 1,
            batch_size=self.batch_size,
        )
        return LazyLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=collate,
            # Cached features are read faster than a worker could hand them over.
            num_workers=0 if dataset.kept else self.workers,
            persistent_workers=not dataset.kept and self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
