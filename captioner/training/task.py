"""The LightningModule: losses, optimiser, and validation by free-running decoding."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional

from captioner.decoding.hypotheses import Hypothesis
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.networks.decoder import shift
from captioner.networks.features import ImageFeatures
from captioner.networks.layout import WordLayout
from captioner.text.options import ScoringOptions
from captioner.text.tokenizer import PAD_ID
from captioner.training.batch_features import BatchFeatures
from captioner.training.batches import Batch
from captioner.training.checkpoint_check import check_checkpoint, check_processes
from captioner.training.datamodule import CaptionDataModule
from captioner.training.gathering import mean_over_all
from captioner.training.optimizer import adamw, warmup_and_cosine
from captioner.training.provenance import provenance
from captioner.training.self_critical import (
    CaptionReward,
    advantages,
    as_captions,
    draw_samples,
    policy_loss,
)
from captioner.training.start import load_weights
from captioner.training.tag_loss import TagLoss, check_tag_loss
from captioner.training.task_options import (
    check_above_zero,
    check_not_negative,
    check_objective,
    check_shares,
)
from captioner.training.tensorboard import SampleImages
from captioner.training.validation import Validation


class CaptionTask(pl.LightningModule):
    """Train a captioner by cross-entropy or by rewards; validate what it says by itself.

    Args:
        encoder: the CNN and how much of it is trained.
        decoder: the recurrent decoder.
        init_from: a shipped model's name (``default``), a model file or a checkpoint to start from
            instead of new weights. The command line takes the settings of encoder and decoder from
            it; in Python, give the same. Its vocabulary is used, with the data's new words added.
        objective: ``cross_entropy`` of the references' words, or ``self_critical``: draw captions
            and make those with a higher CIDEr-D more probable (Rennie et al. 2017). The second
            needs a model that can caption already: ``init_from``. ``language``: cross-entropy of
            sentences alone, whose images the decoder does not see.
        samples: captions drawn for each image by ``self_critical``; the mean reward of the others
            is what each must surpass (Luo 2020).
        temperature: that they are drawn with; below 1, they are more like what a beam search finds,
            and the probabilities need not become extreme for samples to be good captions.
        bleu_weight: with ``self_critical``, times a sample's BLEU-4 is added to its CIDEr-D.
        cross_entropy_weight: with ``self_critical``, times the cross-entropy is added to the loss.
        tag_weight: times the cross-entropy of a classifier of lemmas on the CNN's pooled features
            is added to the loss, so that the CNN learns what an image shows from all its captions
            at once; where the CNN is trained.
        label_smoothing: share of each target's probability spread over all words
            (Szegedy et al. 2016, section 7).
        lr_encoder: highest learning rate of the CNN's trained stages.
        lr_decoder: highest learning rate of the decoder.
        weight_decay: AdamW's, on matrices and kernels only.
        warmup_share: share of all steps in which the rates rise to their highest; then they fall
            along half a cosine to 0.
        val_beam_size: beam of the validation captions.
        val_length_penalty: their length normalisation; see ``DecodingOptions.length_penalty``.
        sample_captions: how many validation images TensorBoard shows with their captions.
        seed: of dropout; the command line links it to ``seed_everything``.

    Raises:
        CaptionerError: when an option has a value that cannot be used.
    """

    model: CaptionModel

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(),  # noqa: B008 - frozen
        decoder: DecoderConfig = DecoderConfig(),  # noqa: B008 - frozen
        init_from: str | None = None,
        objective: str = "cross_entropy",
        samples: int = 5,
        temperature: float = 1.0,
        bleu_weight: float = 0.0,
        cross_entropy_weight: float = 0.0,
        tag_weight: float = 0.0,
        label_smoothing: float = 0.1,
        lr_encoder: float = 2e-4,
        lr_decoder: float = 1e-3,
        weight_decay: float = 0.01,
        warmup_share: float = 0.05,
        val_beam_size: int = 3,
        val_length_penalty: float = 0.7,
        sample_captions: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_objective(objective, init_from, samples)
        check_above_zero(lr_encoder=lr_encoder, lr_decoder=lr_decoder, temperature=temperature)
        check_not_negative(
            weight_decay=weight_decay,
            sample_captions=sample_captions,
            bleu_weight=bleu_weight,
            cross_entropy_weight=cross_entropy_weight,
            tag_weight=tag_weight,
        )
        check_shares(label_smoothing=label_smoothing, warmup_share=warmup_share)
        self.encoder_config, self.decoder_config = encoder, decoder
        self.init_from = init_from
        self.objective, self.samples, self.temperature = objective, samples, temperature
        self.bleu_weight, self.cross_entropy_weight = bleu_weight, cross_entropy_weight
        self.tag_weight, self.label_smoothing = tag_weight, label_smoothing
        self.lr_encoder, self.lr_decoder = lr_encoder, lr_decoder
        self.weight_decay, self.warmup_share = weight_decay, warmup_share
        self._rewards: list[tuple[int, CaptionReward]] = []
        """Of each source, with the place of its first image."""
        # Nothing is blocked: what is validated is what was learnt, in whatever language.
        self.decoding = DecodingOptions(
            beam_size=val_beam_size, length_penalty=val_length_penalty, no_repeat_ngram=0
        )
        self.sample_captions = sample_captions
        self.seed = seed
        self.tag_loss: TagLoss | None = None
        self._features: BatchFeatures | None = None
        self._validation = Validation()
        self._epoch_began = self._validation_began = self._validated_s = 0.0

    @property
    def data(self) -> CaptionDataModule:
        """The data module of the running trainer."""
        module: CaptionDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        return module

    def configure_model(self) -> None:
        """Build the network once the vocabulary is known.

        Raises:
            CaptionerError: when the data module was given another encoder or start.
        """
        if hasattr(self, "model"):
            return
        data = self.data
        if (data.encoder_config, data.init_from) != (self.encoder_config, self.init_from):
            raise CaptionerError(
                "encoder and init_from of CaptionTask and CaptionDataModule differ; give both the "
                "same, as the command line does"
            )
        # The first is what the model writes unless it is asked for another.
        self.decoder_config = replace(self.decoder_config, styles=data.styles)
        self.model = CaptionModel.build(
            self.encoder_config,
            self.decoder_config,
            data.tokenizer,
            load_weights=data.initial is None,
        )
        self.model.lexicon = data.lexicon
        if data.initial is not None:
            self.model.decoding = data.initial.decoding
            self.model.familiarity = data.initial.familiarity
            self.model.tag_head = data.initial.tag_head
            load_weights(self.model, data.initial, f"init_from={self.init_from}")
        elif self.encoder_config.frozen:
            # Weights that were drawn at random: those that the cached features come from.
            self.model.encoder.load_state_dict(data.encoder_weights)
        self.tag_loss = self._make_tag_loss()

    def _make_tag_loss(self) -> TagLoss | None:
        if not self.tag_weight or not self.trainer.training:
            return None
        data = self.data
        if self.encoder_config.frozen or data.lexicon is None or data.stream is not None:
            raise CaptionerError(
                f"model.tag_weight={self.tag_weight}: is for a CNN that is trained "
                "(model.encoder.trainable), data that does not stream, and captions in a language "
                "that is tagged; use 0"
            )
        return TagLoss(data.lexicon, data.examples["train"], self.model.encoder.feature_size)

    def features(self, images: Tensor) -> ImageFeatures:
        """Features of what a batch holds of its images."""
        if self._features is None:
            self._features = BatchFeatures(self.model.encoder)
        return self._features(images)

    def loss(
        self, features: ImageFeatures, captions: Tensor, styles: Tensor | None = None
    ) -> Tensor:
        """Cross-entropy of the next word, the mean over all words of captions (B, C, T + 1)."""
        logits, said, _ = self._next_words(features, captions, styles)
        smoothing = self.label_smoothing if self.training else 0.0
        return functional.cross_entropy(logits.float(), said, label_smoothing=smoothing)

    def _next_words(
        self, features: ImageFeatures, captions: Tensor, styles: Tensor | None
    ) -> tuple[Tensor, Tensor, WordLayout]:
        """Logits (P, V) of the words of captions (B, C, T + 1), these words (P,), their layout."""
        inputs, targets = shift(captions)
        layout = WordLayout.of((targets != PAD_ID).sum(-1), targets.shape[-1])
        readout = self.model.decoder.read(features, inputs, layout, styles)  # (P, E)
        return self.model.decoder.logits(readout), targets.flatten()[layout.places], layout

    def on_train_start(self) -> None:
        """Count the n-grams of the training captions, against which samples are scored."""
        if self.objective != "self_critical":
            return
        for part in self.data.parts["train"]:
            examples = self.data.examples["train"][part.first : part.first + part.size]
            references = {each.image_id: each.captions for each in examples}
            reward = CaptionReward(references, self.model.tokenizer, self.bleu_weight)
            self._rewards.append((part.first, reward))

    def _score_samples(
        self, places: Sequence[int], samples: Sequence[Sequence[Hypothesis]]
    ) -> Tensor:
        """Rewards (B, C), each by the document frequencies of the image's own source."""
        assert self._rewards, "made when training starts"
        firsts = [first for first, _ in self._rewards]
        rewards = torch.zeros(len(samples), self.samples)
        rows_of: dict[int, list[int]] = defaultdict(list)
        for row, place in enumerate(places):
            rows_of[bisect_right(firsts, place) - 1].append(row)
        for number, rows in rows_of.items():
            ids = [self.data.examples["train"][places[row]].image_id for row in rows]
            scored = self._rewards[number][1].score(ids, [samples[row] for row in rows])
            rewards[rows] = scored.to(rewards.dtype)
        return rewards

    def self_critical_loss(
        self, features: ImageFeatures, places: Sequence[int], styles: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Policy gradient's loss of samples drawn for B images, their rewards (B, C), their words.

        Args:
            features: of the images.
            places: (B,) of the images in the training split; with the epoch they settle what is
                drawn, whatever the batch.
            styles: (B,) int64, of the captions.
        """
        options = DecodingOptions(
            sample=True,
            num_captions=self.samples,
            max_length=self.data.max_words,
            temperature=self.temperature,
            seed=self._draw,
            no_repeat_ngram=0,  # what repeats shall be drawn, and its reward be low
        )
        samples = draw_samples(self.model.decoder, features, options, places, styles)
        rewards = self._score_samples(places, samples).to(features.grid.device)
        # The words again, all at once: gradients through the loop above would cost far more.
        captions = as_captions(samples).to(rewards.device)
        logits, said, layout = self._next_words(features, captions, styles)
        advantage = advantages(rewards)[..., None].expand(layout.shape).flatten()[layout.places]
        loss = policy_loss(logits, said, advantage, self.temperature)
        return loss, rewards, said.new_tensor(len(said))

    @property
    def _draw(self) -> int:
        """Seed of this epoch's samples."""
        return hash((self.seed, self.current_epoch)) % 2**63

    def on_train_epoch_start(self) -> None:
        """Start the clock."""
        self._epoch_began, self._validated_s = time.perf_counter(), 0.0

    def on_train_epoch_end(self) -> None:
        """Log how long the epoch took, in seconds, its validation not counted."""
        took = time.perf_counter() - self._epoch_began - self._validated_s
        self.log("train/epoch_seconds", took)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Draw dropout from the place in the run alone, so that a resumed run repeats it."""
        place = (self.seed, self.current_epoch, batch_idx)
        rank = (self.global_rank,) if self.global_rank else ()
        # The hash of a tuple of integers, unlike that of a string, is the same in every process.
        torch.manual_seed(hash(place + rank) % 2**63)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One batch of teacher forcing, or of samples and their rewards."""
        features, images = self.features(batch.images), len(batch.indices)
        if self.objective != "self_critical":
            loss, shown = self._cross_entropy(features, batch)
        else:
            # In float32: in half precision, what is drawn is not what the probabilities say.
            whole = ImageFeatures(features.grid.float(), features.pooled.float())
            with torch.autocast(self.device.type, enabled=False):
                loss, rewards, words = self.self_critical_loss(whole, batch.places, batch.styles)
            loss, shown = mean_over_all(loss, words * batch.counts)
            _, reward = mean_over_all(rewards.mean(), images * batch.counts)
            self.log("train/reward", reward, prog_bar=True, batch_size=images)
            if self.cross_entropy_weight:
                more, shown_more = self._cross_entropy(features, batch)
                loss = loss + self.cross_entropy_weight * more
                shown = shown + self.cross_entropy_weight * shown_more
        if self.tag_loss is not None:
            tags, shown_tags = mean_over_all(
                self.tag_loss(features.pooled, batch.places), images * batch.counts
            )
            self.log("train/tag_loss", shown_tags, batch_size=images)
            loss = loss + self.tag_weight * tags
            shown = shown + self.tag_weight * shown_tags
        self.log("train/loss", shown, prog_bar=True, batch_size=images)
        # Of the decoder, whose groups are the last; one factor scales all of them.
        rate = self.trainer.optimizers[0].param_groups[-1]["lr"]
        self.log("train/learning_rate", rate, batch_size=images)
        return loss

    def _cross_entropy(self, features: ImageFeatures, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss to differentiate in this process, and the mean over those of all."""
        loss = self.loss(features, batch.captions, batch.styles)
        return mean_over_all(loss, _count_words(batch.captions) * batch.counts)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Caption a batch, reading nothing of its references."""
        self._evaluate_batch(batch, "dev")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """As in validation."""
        self._evaluate_batch(batch, "test")

    def on_validation_epoch_start(self) -> None:
        """Start the clock, and forget the captions of before."""
        self._validation_began = time.perf_counter()
        self._validation.clear()

    def on_test_epoch_start(self) -> None:
        """Forget the captions of before."""
        self._validation.clear()

    def on_validation_epoch_end(self) -> None:
        """Score the captions."""
        self._score("val", "dev")
        self._validated_s += time.perf_counter() - self._validation_began

    def on_test_epoch_end(self) -> None:
        """Score the captions."""
        self._score("test", "test")

    def _evaluate_batch(self, batch: Batch, split: str) -> None:
        if not batch.counts:
            return
        features = self.features(batch.images)
        loss = self.loss(features, batch.captions, batch.styles)
        self._validation.add_loss(loss, int(_count_words(batch.captions)))
        features = ImageFeatures(features.grid.float(), features.pooled.float())
        with torch.autocast(self.device.type, enabled=False):
            results = self.model.caption_features(features, self.decoding)
        examples = self.data.examples[split]
        for place, result in zip(batch.places, results, strict=True):
            self._validation.said[examples[place].image_id] = result.text

    def _score(self, name: str, split: str) -> None:
        """Log loss and scores; the mean over the sources chooses."""
        self._validation.gather()
        parts, examples = self.data.parts[split], self.data.examples[split]
        scoring = ScoringOptions(language=self.data.language)
        scores = self._validation.scores(parts, examples, scoring, self.trainer.is_global_zero)
        for key, value in scores.items():
            self.log(f"{name}/{key}", value)
        # The progress bar is for people: times 100, as papers print it.
        self.log("CIDEr-D", 100 * scores.get("cider_d", 0.0), prog_bar=True, logger=False)

    def configure_callbacks(self) -> list[pl.Callback]:
        """Some of the captions with their images, for TensorBoard."""
        return [SampleImages(self.sample_captions, self._validation.said)]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with a rate for each part, warm-up and half a cosine, step by step.

        Raises:
            CaptionerError: when nothing says how long the training is.
        """
        encoder: nn.Module = self.model.encoder
        if self.tag_loss is not None:
            encoder = nn.ModuleList([encoder, self.tag_loss])
        optimizer = adamw(
            encoder,
            self.model.decoder,
            lr_encoder=self.lr_encoder,
            lr_decoder=self.lr_decoder,
            weight_decay=self.weight_decay,
        )
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise CaptionerError(
                "trainer.max_epochs=-1 sets no end, which the learning rate's schedule needs; give "
                "a number of epochs"
            )
        schedule = warmup_and_cosine(optimizer, int(steps), self.warmup_share)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep all that `captioner export` needs beside the weights, as JSON primitives."""
        description = self.model.description()
        description["provenance"] = self._provenance()
        checkpoint["captioner"] = description

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model, or with another vocabulary or other features.

        Raises:
            CaptionerError: when it is not a captioner's or does not fit the configuration.
        """
        check_checkpoint(checkpoint, self.model, self.encoder_config, self.decoder_config)
        check_tag_loss(checkpoint["state_dict"], self.tag_weight, self.tag_loss)
        self._features = None  # whose frozen part is a copy
        if self.trainer.training:
            check_processes(checkpoint, self.trainer.world_size)

    def _provenance(self) -> dict[str, Any]:
        objective: dict[str, Any] = {"objective": self.objective}
        if self.objective == "self_critical":
            names = ("samples", "temperature", "bleu_weight", "cross_entropy_weight")
            objective |= {name: getattr(self, name) for name in names}
        others = ("tag_weight", "label_smoothing", "lr_encoder", "lr_decoder", "seed")
        return provenance(
            self.trainer,
            self.data,
            self.init_from,
            objective,
            {name: getattr(self, name) for name in others},
        )


def _count_words(captions: Tensor) -> Tensor:
    """Number () of words that captions (B, C, T + 1) teach, end symbols among them."""
    return (shift(captions)[1] != PAD_ID).sum()
