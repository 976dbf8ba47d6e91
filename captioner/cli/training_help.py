"""The short help of the training commands; loads no torch, which the long one (--help-all) does."""

from __future__ import annotations

from collections.abc import Sequence

FIT = """\
usage: captioner fit --config FILE.yaml [--OPTION VALUE ...]

Train a captioner. Options on the command line win over those of the file.

  --config FILE            complete examples are in configs/; data/README.md explains the data
  --run_dir DIR            where this run is kept (default: runs/captioner)
  --ckpt_path last         resume an interrupted run; the same command starts and resumes
  --seed_everything N      the same seed, the same run (default: 0)
  --print_config           print all options with their values, and do nothing else
  --help-all               all options

data:
  --data.root PATH         captioned images: a folder, or its annotation file; archives or tables
                           to stream: 's3://bucket/{0000..0099}.tar', 'train/*.parquet'
  --data.val_root PATH     images that validate what is streamed
  --data.format NAME       its layout (default: auto)
  --data.dev_fraction P    held out to validate, if the data says nothing (default: 0.1)
  --data.min_count N       learn words that occur N times (default: 5)
  --data.batch_size B      images in a batch (default: 32)
  --data.augment BOOL      train on random views of the images (default: false)
model:
  --model.init_from MODEL  start from default, flickr8k, a model file or a checkpoint, with its
                           encoder, decoder and words; without, from nothing
  --model.encoder.name X   timm/MODEL or torchvision/MODEL (default: timm/tf_efficientnet_lite0)
  --model.encoder.trainable X  none, all, or the last N stages (default: none)
  --model.decoder.cell X   rnn, gru or lstm (default: lstm)
  --model.decoder.attention X  spatial, layered or none (default: spatial)
  --model.objective X      cross_entropy, self_critical or language (default: cross_entropy)
  --model.lr_decoder X     highest learning rate of the decoder (default: 0.001)
training:
  --trainer.max_epochs N   (default: 20)
  --trainer.devices N      GPUs, or processes on the CPU, that train together (default: 1)
  --trainer.precision X    bf16-mixed is faster on GPUs (default: 32-true)
  --early_stopping.patience N  epochs without a better validation (default: 5)

examples:
  captioner fit --config configs/custom.yaml --data.root photos/
  captioner fit --config configs/custom.yaml --data.root photos/ --ckpt_path last
  captioner fit --config configs/flickr8k_lstm_attention.yaml --model.decoder.cell gru
  captioner fit --config configs/custom.yaml --model.init_from mine.safetensors --run_dir runs/2
"""

SCORE = """\
usage: captioner {command} --config RUN/config.yaml --ckpt_path best [--OPTION VALUE ...]

Score a training checkpoint on the split {split}, as the training does.

  --config FILE            the configuration that the run has kept
  --ckpt_path X            best, last or the path of a checkpoint
  --run_dir DIR            the run, if it was moved
  --data.root PATH         other data, with the same vocabulary
  --help-all               all options

examples:
  captioner {command} --config runs/custom/config.yaml --ckpt_path best
  captioner {command} --config runs/custom/config.yaml --ckpt_path runs/custom/checkpoints/last.ckpt
"""

HELP = {
    "fit": FIT,
    "validate": SCORE.format(command="validate", split="dev"),
    "test": SCORE.format(command="test", split="test"),
}
HELP_OPTIONS = ("-h", "--help")
HELP_ALL = "--help-all"


def short_help(arguments: Sequence[str]) -> str | None:
    """The help that is asked for; None if these arguments ask for another thing."""
    command, *others = arguments
    return HELP[command] if any(option in others for option in HELP_OPTIONS) else None


def with_long_help(arguments: Sequence[str]) -> list[str]:
    """The arguments as the parser of all options takes them."""
    return ["--help" if argument == HELP_ALL else argument for argument in arguments]
