"""One figure that explains a caption: the words, where each looked, and the captions that lost.

Drawn with Pillow, so that it needs nothing that captions do not.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from captioner.decoding.options import DecodingOptions
from captioner.files.escaping import shown
from captioner.files.writing import replace_bytes
from captioner.images.reading import read_image
from captioner.model.attention import CaptionAttention, Window, attend, grid_window
from captioner.model.caption_model import CaptionModel
from captioner.model.results import Candidate, CaptionResult
from captioner.pages.fonts import check_letters, font_for
from captioner.text.scripts import is_right_to_left, wrap

WIDTH = 1400  # pixels of the figure
MARGIN, GAP = 40, 20
PHOTO = (520, 420)  # the most that the photo takes
TILE = 203  # the width of a word's map, the photo under it
INK, QUIET, LINE, BAR = "#1c1d1f", "#5a5e64", "#d5d6d3", "#0b5cad"

# As templates/report.js: dark where nothing was read from, light where most was. RGBA.
RAMP = np.array([[6, 6, 20, 175], [96, 20, 110, 150], [232, 84, 48, 140], [255, 232, 120, 190]])


@dataclass(frozen=True)
class Explanation:
    """What the figure shows.

    Attributes:
        name: of the photo's file.
        image: the photo, RGB.
        result: its captions, best first, as many as the search kept.
        scores: by which they were ranked: log-probability / length**length_penalty.
        attention: of the best caption.
        grid_shape: ``(rows, columns)`` of the grid.
        window: the part of the photo that the grid lies over; see `grid_window`.
    """

    name: str
    image: Image.Image
    result: CaptionResult
    scores: Sequence[float]
    attention: CaptionAttention
    grid_shape: tuple[int, int]
    window: Window

    @property
    def text(self) -> str:
        """The best caption."""
        return self.result.text


def explain(
    model: CaptionModel, path: str | Path, options: DecodingOptions | None = None
) -> Explanation:
    """Caption a photo and look again at how that came about.

    Args:
        model: the captioner.
        path: the photo.
        options: of the search; all captions that it ends with are shown.

    Raises:
        captioner.images.reading.ImageError: the photo cannot be read.
        CaptionerError: a banned word is more than one word.
    """
    options = options or model.decoding
    options = replace(options, num_captions=options.beam_size)
    image = read_image(path, min_side=model.transform.min_side)
    with torch.inference_mode():
        features = model.encode(model.transform.pixels(image).unsqueeze(0))
    result = model.caption_features(features, options)[0]
    return Explanation(
        Path(path).name,
        image,
        result,
        [_score(candidate, options.length_penalty) for candidate in result.candidates],
        attend(model, features, [result.candidates[0].words])[0],
        model.encoder.grid_shape,
        grid_window(model.transform, image.size),
    )


def _score(candidate: Candidate, length_penalty: float) -> float:
    score: float = candidate.log_prob / len(candidate.word_probs) ** length_penalty
    return score


def save_figure(explanation: Explanation, path: Path) -> None:
    """Draw the figure and write it as PNG.

    Raises:
        CaptionerError: it cannot be written, or no font has the letters of the captions.
    """
    for candidate in explanation.result.candidates:
        check_letters(shown(candidate.text))
    data = io.BytesIO()
    draw_figure(explanation).save(data, "PNG", optimize=True)
    replace_bytes(path, [data.getvalue()])


def draw_figure(explanation: Explanation) -> Image.Image:
    """The figure as an RGB image, `WIDTH` pixels wide."""
    photo = explanation.image.copy()
    photo.thumbnail(PHOTO, Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (WIDTH, 6000), "white")
    draw = ImageDraw.Draw(canvas)
    canvas.paste(photo, (MARGIN, MARGIN))
    left = MARGIN + photo.width + 2 * GAP
    below = max(MARGIN + photo.height, _draw_captions(draw, explanation, left)) + 2 * GAP
    draw.line([(MARGIN, below), (WIDTH - MARGIN, below)], fill=LINE, width=2)
    end = _draw_words(canvas, draw, explanation, below + GAP)
    return canvas.crop((0, 0, WIDTH, end + MARGIN))


def _draw_captions(draw: ImageDraw.ImageDraw, explanation: Explanation, left: int) -> int:
    """The best caption and those that lost, beside the photo; returns where they end."""
    result, y = explanation.result, MARGIN
    y = _write(draw, (left, y), shown(explanation.name), 20, QUIET, 62) + 8
    y = _write(draw, (left, y), result.text or "(no words)", 34, INK, 42) + 10
    name = "confidence" if result.is_calibrated else "confidence (not calibrated)"
    y = _draw_bar(draw, left, y, name, result.confidence) + 2 * GAP
    if len(result.candidates) == 1:
        return y
    y = _write(draw, (left, y), "The search ended with", 22, INK, 60) + 4
    small = ImageFont.load_default(17)
    for x, title in ((0, "score"), (80, "words"), (160, "caption")):
        draw.text((left + x, y), title, fill=QUIET, font=small)
    y += 28
    font = ImageFont.load_default(20)
    pairs = zip(result.candidates, explanation.scores, strict=True)
    for place, (candidate, score) in enumerate(pairs):
        colour = INK if place == 0 else QUIET
        draw.text((left, y), f"{score:.2f}", fill=colour, font=font)
        draw.text((left + 80, y), f"{candidate.confidence:.0%}", fill=colour, font=font)
        y = _write(draw, (left + 160, y), candidate.text, 20, colour, 62) + 6
    note = "score: log-probability by length; words: geometric mean of their probabilities"
    y = _write(draw, (left, y), note, 17, QUIET, 90)
    return y


def _draw_bar(draw: ImageDraw.ImageDraw, left: int, y: int, name: str, share: float) -> int:
    width, height = 300, 12
    draw.rounded_rectangle([left, y + 7, left + width, y + 7 + height], 6, fill=LINE)
    if share > 0.01:
        end = left + max(12, round(width * share))
        draw.rounded_rectangle([left, y + 7, end, y + 7 + height], 6, fill=BAR)
    font = ImageFont.load_default(20)
    draw.text((left + width + GAP, y), f"{share:.0%} {name}", fill=INK, font=font)
    return y + 28


def _draw_words(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, explanation: Explanation, y: int
) -> int:
    """A map for every word, in rows; returns where they end."""
    attention = explanation.attention
    if attention.weights is None:
        note = "This captioner has no attention: it reads every word from the whole image."
        y = _write(draw, (MARGIN, y), note, 20, QUIET, 120)
    tile = explanation.image.copy()
    tile.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    levels = None if attention.weights is None else attention.levels()
    is_reversed = is_right_to_left(explanation.text)
    per_row = (WIDTH - 2 * MARGIN + GAP) // (TILE + GAP)
    height = (0 if levels is None else tile.height + 8) + 62
    for place, word in enumerate(attention.words):
        x = MARGIN + place % per_row * (TILE + GAP)
        if is_reversed:
            x = WIDTH - TILE - x
        top = y + place // per_row * (height + GAP)
        if levels is not None:
            cells = levels[place].reshape(explanation.grid_shape)
            canvas.paste(overlaid(tile, cells, explanation.window), (x, top))
            top += tile.height + 8
        prob = attention.word_probs[place]
        known = "unknown" if prob is None else f"{prob:.0%}"
        edge, anchor = (x + TILE, "ra") if is_reversed else (x, "la")
        font = font_for(shown(word), 24)
        draw.text((edge, top), shown(word), fill=INK, font=font, anchor=anchor)
        font = ImageFont.load_default(20)
        draw.text((edge, top + 32), known, fill=QUIET, font=font, anchor=anchor)
    rows = -(-len(attention.words) // per_row)
    end = y + rows * (height + GAP)
    note = f"Then the sentence ends: {attention.end_prob:.0%}.  "
    if levels is not None:
        note += "Light: where the decoder read from for the word, in proportion to its greatest."
    return _write(draw, (MARGIN, end), note, 18, QUIET, 140)


def overlaid(photo: Image.Image, cells: NDArray[np.uint8], window: Window) -> Image.Image:
    """The photo under the map of one word.

    Args:
        photo: RGB.
        cells: (rows, columns), 255 where most was read from.
        window: the part of the photo that they lie over, in shares of its size.
    """
    left, top, width, height = window
    columns, rows = cells.shape[1], cells.shape[0]
    # Bilinear between the middles of the cells; beyond the grid nothing was read.
    x = ((np.arange(photo.width) + 0.5) / photo.width - left) / width * columns
    y = ((np.arange(photo.height) + 0.5) / photo.height - top) / height * rows
    values = _between(_between(cells.astype(np.float64), y - 0.5).T, x - 0.5).T / 255
    inside = ((y >= 0) & (y <= rows))[:, None] & ((x >= 0) & (x <= columns))[None]
    along = np.where(inside, values, 0) * (len(RAMP) - 1)
    low = np.minimum(along.astype(int), len(RAMP) - 2)
    colours = RAMP[low] + (along - low)[..., None] * (RAMP[low + 1] - RAMP[low])
    heat = Image.fromarray(np.rint(colours).astype(np.uint8), "RGBA")
    return Image.alpha_composite(photo.convert("RGBA"), heat).convert("RGB")


def _between(values: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows (N, M) of an array (R, M) at places between its rows; beyond them, as the outermost."""
    at = np.clip(at, 0, len(values) - 1)
    low = np.minimum(at.astype(int), max(0, len(values) - 2))
    high = np.minimum(low + 1, len(values) - 1)
    share = (at - low)[:, None]
    mixed: NDArray[np.float64] = values[low] * (1 - share) + values[high] * share
    return mixed


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: str, most: int
) -> int:
    """Write text in lines of at most that many columns; returns where it ends.

    A text from right to left begins at the right edge of the figure.
    """
    lines = "\n".join("".join(line).strip() for line in wrap(text, most))
    font = font_for(lines, size)
    how: dict[str, Any] = {"font": font, "spacing": 6}
    if is_right_to_left(text):
        at = (WIDTH - MARGIN, at[1])
        how |= {"anchor": "ra", "align": "right"}
        if features.check("raqm"):
            how["direction"] = "rtl"
    draw.multiline_text(at, lines, fill=colour, **how)
    return int(draw.multiline_textbbox(at, lines, **how)[3]) + 6
