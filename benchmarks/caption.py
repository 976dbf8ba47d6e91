"""How fast, how flat and how soon `captioner caption` is, as ratios within one run.

    python benchmarks/caption.py                    all of it; about ten minutes on two cores
    python benchmarks/caption.py --only speed start some of it
    python benchmarks/caption.py --only speed --precision int8

speed    (a) images/s of the command (beam 3, JPEGs of mixed sizes around 500 x 375) against the
         CNN alone in the fastest runtime installed, and (b) against the same network in plain eager
         float32, one image at a time
others   (c) against BLIP-base and ViT-GPT2 of `transformers` (to be installed), randomly
         initialised, captions of the same length, greedy, in the best of a few batch sizes
memory   (d) peak memory for 20,000 images (hard links) against that for 1,000
start    (e) `captioner caption one.jpg` against `python -c "import torch"`
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from captioner.model.caption_model import CaptionModel
from captioner.model.shipped import load_model
from captioner.networks.decoder_steps import DecoderSteps
from captioner.networks.features import ImageFeatures
from captioner.text.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID

EXAMPLES = Path(__file__).parents[1] / "data" / "examples"
SIZES = [(500, 375), (500, 333), (375, 500), (500, 400), (480, 360), (640, 480)]
BEAM = DecodingOptions(beam_size=3)
ROUNDS = 3
PARTS = ("speed", "others", "memory", "start")


def make_photos(folder: Path, count: int) -> list[Path]:
    """JPEGs of mixed sizes: parts of the example photos, no two alike."""
    photos = [Image.open(path).convert("RGB") for path in sorted(EXAMPLES.glob("*.jpg"))]
    draw = random.Random(0)
    folder.mkdir()
    made = []
    for number in range(count):
        photo = photos[number % len(photos)]
        width, height = (round(side * draw.uniform(0.6, 1)) for side in photo.size)
        left, top = draw.randint(0, photo.width - width), draw.randint(0, photo.height - height)
        part = photo.crop((left, top, left + width, top + height))
        made.append(folder / f"{number:05d}.jpg")
        part.resize(draw.choice(SIZES), Image.Resampling.BICUBIC).save(made[-1], quality=90)
    return made


def seconds(command: list[str]) -> float:
    # As installed packages are: with the bytecode of earlier runs.
    env = {name: each for name, each in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env
    )
    return time.perf_counter() - start


def caption_command(paths: list[Path], output: Path, precision: str = "auto") -> list[str]:
    command = [sys.executable, "-m", "captioner", "caption", *map(str, paths), "--quiet"]
    options = ["--beam-size", "3", "--precision", precision]
    return [*command, *options, "--output", str(output), "--overwrite"]


def best_rate(run: Callable[[], int]) -> float:
    """Images per second in the best of some rounds; `run` says how many it did."""
    rates = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        rates.append(run() / (time.perf_counter() - start))
    return max(rates)


# --- (a) and (b) ---------------------------------------------------------------------------


def speed(folder: Path, photos: list[Path], precision: str) -> float:
    model = load_model(device="cpu", precision=precision)
    pixels = torch.stack([model.read(path) for path in photos[:64]])
    few = photos[: len(photos) // 5]
    for part, name in ((photos, "many"), (few, "few")):
        (folder / name).mkdir()
        for path in part:
            os.link(path, folder / name / path.name)
    whole, rest = [], []
    for _ in range(ROUNDS):
        long, short = (
            seconds(caption_command([folder / name], folder / f"{name}.jsonl", precision))
            for name in ("many", "few")
        )
        whole.append(len(photos) / long)
        rest.append((len(photos) - len(few)) / (long - short))
    with torch.inference_mode():
        cnn = best_rate(lambda: len(model.encode(pixels).grid))
        exact = load_model(device="cpu", precision="fp32")
        of_exact = best_rate(lambda: len(exact.encode(pixels).grid))
        plain = best_rate(lambda: _one_by_one(exact, photos[:24]))
    engine = model.encoder_engine
    print(f"captioner caption, {len(photos)} JPEGs, start included: {max(whole):7.1f} images/s")
    print(f"captioner caption, each further image:       {max(rest):7.1f} images/s")
    print(f"the CNN alone, in {engine:12s}:              {cnn:7.1f} images/s")
    print(f"the same in float32:                         {of_exact:7.1f} images/s")
    print(f"eager float32, one image at a time:          {plain:7.1f} images/s")
    print(f"(a) command / CNN alone: {max(rest) / cnn:.2f} (with its start {max(whole) / cnn:.2f})")
    print(f"    command / CNN alone in float32: {max(rest) / of_exact:.2f}")
    print(f"(b) command / eager one by one: {max(rest) / plain:.1f}\n")
    return max(rest)


def _one_by_one(model: CaptionModel, paths: list[Path]) -> int:
    """As the usual scripts do it: the layers as trained, a batch of one, no shared work."""
    backbone = model.encoder.backbone.to(memory_format=torch.contiguous_format)
    steps = DecoderSteps(model.decoder)
    for path in paths:
        grid = backbone(model.transform.scale(model.read(path))[None])
        features = ImageFeatures.from_grid(grid.flatten(2).transpose(1, 2))
        decode(
            steps.step,
            steps.start(features),
            1,
            BEAM,
            bos=BOS_ID,
            eos=EOS_ID,
            forbidden=[PAD_ID, BOS_ID, UNK_ID],
            device="cpu",
        )
    return len(paths)


# --- (c) -----------------------------------------------------------------------------------


def others(photos: list[Path], ours: float) -> None:
    try:
        transformers = importlib.import_module("transformers")
    except ImportError:
        print("(c) skipped: pip install transformers\n")
        return
    words = 11  # of our captions with the end, on average
    blip = transformers.BlipForConditionalGeneration(transformers.BlipConfig()).eval()
    vit_gpt2 = transformers.VisionEncoderDecoderModel(
        transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
            transformers.ViTConfig(), transformers.GPT2Config()
        )
    ).eval()
    for name, network, side, start in (
        ("BLIP-base", blip, 384, {}),
        ("ViT-GPT2", vit_gpt2, 224, {"decoder_start_token_id": 50256, "pad_token_id": 50256}),
    ):
        rates = []
        for batch in (1, 4, 8):
            pixels = torch.rand(batch, 3, side, side)
            length = {"min_new_tokens": words, "max_new_tokens": words, "num_beams": 1}
            with torch.inference_mode():
                begun = time.perf_counter()
                network.generate(pixel_values=pixels, do_sample=False, **length, **start)
                rates.append(batch / (time.perf_counter() - begun))
        print(f"{name}, greedy, {words} words:        {max(rates):7.2f} images/s")
        print(f"(c) command / {name}: {ours / max(rates):.0f}")
    print()


# --- (d) and (e) ---------------------------------------------------------------------------


def memory(folder: Path, photos: list[Path], counts: tuple[int, int] = (1000, 20000)) -> None:
    peaks = []
    for count in counts:
        links = folder / f"links{count}"
        links.mkdir()
        for number in range(count):
            os.link(photos[number % len(photos)], links / f"{number:06d}.jpg")
        peaks.append(_peak_mib(caption_command([links], folder / f"{count}.jsonl")))
        print(f"peak memory for {count:6d} images: {peaks[-1]:7.0f} MiB")
    print(f"(d) {counts[1]} / {counts[0]} images: {peaks[1] / peaks[0]:.3f}\n")


def _peak_mib(command: list[str]) -> float:
    """Peak resident memory of a command, of which this process is the only other child's parent."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *command], check=True, capture_output=True, text=True
    )
    return int(found.stdout.split()[-1]) / 1024  # kilobytes on Linux


def start(photo: Path) -> None:
    caption = [sys.executable, "-m", "captioner", "caption", str(photo), "--quiet"]
    torch_alone = [sys.executable, "-c", "import torch"]
    ours, theirs = [], []
    for _ in range(5):  # in turn, so that both meet the same moments of the machine
        ours.append(seconds(caption))
        theirs.append(seconds(torch_alone))
    print(f"captioner caption one.jpg: {min(ours):.2f} s; import torch: {min(theirs):.2f} s")
    print(f"(e) command / import torch: {min(ours) / min(theirs):.2f}\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--precision", default="auto", help="of the command's CNN (default: auto)")
    parser.add_argument("--images", type=int, default=1000, help="JPEGs to make (default: 1000)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = make_photos(folder / "photos", args.images)
        print(
            f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
        )
        if "speed" in args.only or "others" in args.only:
            rate = speed(folder, photos, args.precision)
            if "others" in args.only:
                others(photos, rate)
        if "memory" in args.only:
            memory(folder, photos)
        if "start" in args.only:
            start(photos[0])


if __name__ == "__main__":
    main()
