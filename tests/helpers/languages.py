"""Small captioners in other languages, on the CNN of another one."""

from __future__ import annotations

from pathlib import Path

import torch

from captioner.model.caption_model import CaptionModel
from captioner.model.language_file import write_language
from captioner.networks.decoder import Decoder
from captioner.text.tokenizer import Tokenizer

WORDS = {
    "de": ["ein", "hund", "läuft", "über", "die", "straße", "roter", "ball"],
    "zh": ["一只", "狗", "在", "草地", "上", "跑", "红色", "的", "球"],
    "ar": ["كلب", "يركض", "في", "الحديقة", "كرة", "حمراء", "رجل"],
}


def write_languages(base: CaptionModel, folder: Path, *languages: str) -> list[Path]:
    """A language file for each, of untrained decoders that say something else of every image."""
    paths = []
    for seed, language in enumerate(languages):
        torch.manual_seed(seed)
        tokenizer = Tokenizer(WORDS[language], language)
        decoder = Decoder(base.decoder.config, len(tokenizer), base.encoder.feature_size)
        for name, parameter in decoder.named_parameters():
            parameter.data.mul_(240 if name.endswith("projection.weight") else 4)
        paths.append(folder / f"{language}.safetensors")
        write_language(CaptionModel(base.encoder, decoder, tokenizer).eval(), paths[-1])
    return paths
