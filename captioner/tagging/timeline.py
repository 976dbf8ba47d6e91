"""From captioned frames to shots, segments and tags: the part of tagging that knows no model.

All intervals are half-open, ``[start_s, end_s)``, in seconds since the first frame. A frame stands
for the time of its shot that is nearer to it than to any other frame that was looked at, and for
all the time that it is shown.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from captioner.model.tags import Tag
from captioner.tagging.options import TagOptions
from captioner.text.lexicon import Lexicon

LEAST_FRAME_CONFIDENCE = 0.1
"""A frame shows what a tag names if its confidence there is no lower than this."""


@dataclass(frozen=True)
class Shot:
    """What was filmed without a cut."""

    start_s: float
    end_s: float


@dataclass(frozen=True)
class OtherCaption:
    """A caption in another language than the first.

    Attributes:
        text: the caption.
        words: its words, as the model said them.
        confidence: of the caption, in [0, 1].
    """

    text: str
    words: tuple[str, ...]
    confidence: float


@dataclass(frozen=True)
class CaptionedFrame:
    """One frame that was looked at.

    Attributes:
        time_s: when it is shown, in seconds.
        frame_index: its number among the frames that could be decoded.
        shot: the number of its shot, from 0.
        starts_segment: whether it shows something else than the frame before.
        text: its caption; None where the frame shows nothing but one colour.
        words: the words of the caption, as the model said them.
        confidence: of the caption, in [0, 1]; see `captioner.model.results.CaptionResult`. 0
            without a caption.
        avg_logprob: mean natural-log probability of the caption's words, its end included; None
            without a caption.
        tags: what the frame shows, surest first.
        until_s: when the next frame of the video is shown, in seconds; None if that is not known.
        others: language -> caption, of the other languages that were asked for; empty where there
            is no caption.
    """

    time_s: float
    frame_index: int
    shot: int
    starts_segment: bool
    text: str | None
    words: tuple[str, ...]
    confidence: float
    avg_logprob: float | None
    tags: tuple[Tag, ...]
    until_s: float | None = None
    others: Mapping[str, OtherCaption] = field(default_factory=dict)


@dataclass(frozen=True)
class Segment:
    """A stretch of one shot in which the frames show the same thing.

    Attributes:
        start_s: where it begins.
        end_s: where it is over.
        shot: the number of its shot, from 0.
        text: the caption on which its frames agree most; see `choose_caption`. None where they
            show nothing but one colour.
        confidence: of that caption on its frame, in [0, 1].
        avg_logprob: likewise.
        agreement: mean likeness of that caption to those of the other frames, in [0, 1]; 1 for
            a segment of one frame.
        frames: positions of its frames in the list of all frames.
        tags: with the mean of their confidence over the time of the segment.
        others: language -> caption, chosen in the same way in each of the other languages.
    """

    start_s: float
    end_s: float
    shot: int
    text: str | None
    confidence: float
    avg_logprob: float | None
    agreement: float
    frames: tuple[int, ...]
    tags: tuple[Tag, ...]
    others: Mapping[str, OtherCaption] = field(default_factory=dict)


@dataclass(frozen=True)
class TagSpan:
    """Where a tag holds without a break.

    Attributes:
        start_s: where it begins.
        end_s: where it is over.
        confidence: mean of the tag's confidence over that time, in [0, 1].
        frames: positions, in the list of all frames, of those that show it: the evidence.
    """

    start_s: float
    end_s: float
    confidence: float
    frames: tuple[int, ...]


@dataclass(frozen=True)
class VideoTag:
    """A tag of the whole video.

    Attributes:
        name: the lemma.
        type: ``noun``, ``verb`` or ``adjective``.
        confidence: mean over the time of its spans, in [0, 1]; see `captioner.model.tags` for what
            the confidence of a tag means.
        coverage: share of the video's time that its spans cover, in [0, 1].
        score: confidence * coverage * log(1 / frequency), by which tags are ranked: what the
            frames show, weighted against words that any image's captions have (tf-idf, Salton
            and Buckley 1988). Frequency is the word's share of the training images.
        spans: where it holds, in the order of time.
    """

    name: str
    type: str
    confidence: float
    coverage: float
    score: float
    spans: tuple[TagSpan, ...]


@dataclass(frozen=True)
class Timeline:
    """What a video shows and when."""

    shots: tuple[Shot, ...]
    segments: tuple[Segment, ...]
    tags: tuple[VideoTag, ...]


def build_timeline(
    frames: Sequence[CaptionedFrame],
    cuts_s: Sequence[float],
    duration_s: float,
    lexicon: Lexicon | None,
    options: TagOptions,
    start_s: float = 0.0,
) -> Timeline:
    """Put the frames of one video together.

    Args:
        frames: in the order of time.
        cuts_s: where the second and all later shots begin, rising, in seconds.
        duration_s: of the video, in seconds, or where the part is over that was looked at.
        lexicon: which words count, and how common they are; None counts all words the same.
        options: which tags to keep.
        start_s: where the part begins that was looked at, in seconds.
    """
    starts = [start_s, *cuts_s]
    shots = tuple(Shot(a, b) for a, b in zip(starts, [*cuts_s, duration_s], strict=True))
    times = _times(frames, shots)
    segments = tuple(_segments(frames, times, lexicon, options))
    return Timeline(
        shots, segments, _video_tags(frames, times, duration_s - start_s, lexicon, options)
    )


def _times(frames: Sequence[CaptionedFrame], shots: Sequence[Shot]) -> list[tuple[float, float]]:
    """The time that each frame stands for."""
    times: list[tuple[float, float]] = []
    for position, frame in enumerate(frames):
        start_s, end_s = shots[frame.shot].start_s, shots[frame.shot].end_s
        if position > 0 and frames[position - 1].shot == frame.shot:
            start_s = times[-1][1]
        if position + 1 < len(frames) and frames[position + 1].shot == frame.shot:
            next_s = frames[position + 1].time_s
            end_s = (frame.time_s + next_s) / 2
            if frame.until_s is not None:
                end_s = min(max(end_s, frame.until_s), next_s)
        times.append((start_s, end_s))
    return times


def _runs(frames: Sequence[CaptionedFrame]) -> Iterable[list[int]]:
    run: list[int] = []
    for position, frame in enumerate(frames):
        if run and (frame.starts_segment or frame.shot != frames[run[-1]].shot):
            yield run
            run = []
        run.append(position)
    if run:
        yield run


def _mean(
    values: Mapping[int, float], times: Sequence[tuple[float, float]], positions: Sequence[int]
) -> float:
    """Mean over the time of some frames, of values that are 0 for frames without one."""
    lengths = {position: times[position][1] - times[position][0] for position in positions}
    total = math.fsum(lengths.values())
    if total <= 0:  # a video that was given up after its first frame
        return math.fsum(values.get(position, 0.0) for position in positions) / len(positions)
    return math.fsum(values.get(i, 0.0) * length for i, length in lengths.items()) / total


# --- segments ------------------------------------------------------------------------------


def _segments(
    frames: Sequence[CaptionedFrame],
    times: Sequence[tuple[float, float]],
    lexicon: Lexicon | None,
    options: TagOptions,
) -> list[Segment]:
    """The segments; neighbours in one shot that get the same caption are one."""
    found: list[Segment] = []
    for run in _runs(frames):
        segment = _segment(frames, times, run, lexicon, options)
        if found and (found[-1].shot, found[-1].text) == (segment.shot, segment.text):
            both = [*found.pop().frames, *run]
            segment = _segment(frames, times, both, lexicon, options, segment.text)
        found.append(segment)
    return found


def _segment(
    frames: Sequence[CaptionedFrame],
    times: Sequence[tuple[float, float]],
    positions: Sequence[int],
    lexicon: Lexicon | None,
    options: TagOptions,
    text: str | None = None,
) -> Segment:
    own = [frames[position] for position in positions]
    chosen, agreement = choose_caption(own, lexicon, text)
    start_s, end_s = times[positions[0]][0], times[positions[-1]][1]
    said: defaultdict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for position in positions:
        for tag in frames[position].tags:
            said[tag.name, tag.type][position] = tag.confidence
    tags = [Tag(*key, _mean(found, times, positions)) for key, found in said.items()]
    kept = [tag for tag in tags if tag.confidence >= options.min_confidence]
    kept.sort(key=lambda tag: (-tag.confidence, tag.name, tag.type))
    return Segment(
        start_s=start_s,
        end_s=end_s,
        shot=chosen.shot,
        text=chosen.text,
        confidence=chosen.confidence,
        avg_logprob=chosen.avg_logprob,
        agreement=agreement,
        frames=tuple(positions),
        tags=tuple(kept[: options.max_tags]),
        others={language: choose_other(own, language) for language in chosen.others},
    )


def choose_caption(
    frames: Sequence[CaptionedFrame], lexicon: Lexicon | None, text: str | None = None
) -> tuple[CaptionedFrame, float]:
    """The frame whose caption agrees most with those of the others, and how much it does.

    Likeness of two captions is the cosine of their tf-idf vectors over content lemmas. Taken is
    the caption with the greatest product of its confidence and its mean likeness to the others;
    of equal ones the earliest. On crops of the Flickr8k validation photos this scored better than
    one crop's caption, and than decoding from the mean of the crops' features (Venugopalan et al.
    2015); `benchmarks/consensus.py` has the figures.

    Args:
        frames: of one segment.
        lexicon: which words count, and how common they are; None counts all words the same.
        text: the caption, if it is known: one of the frames'.
    """
    if len(frames) == 1:
        return frames[0], 1.0
    vectors = [_vector(frame.words, lexicon) for frame in frames]
    total: defaultdict[str, float] = defaultdict(float)
    for vector in vectors:
        for word, weight in vector.items():
            total[word] += weight
    best, best_score, best_agreement = frames[0], -1.0, 0.0
    for frame, vector in zip(frames, vectors, strict=True):
        # The sum over the others without a loop over them: the vectors have length 1 (or 0).
        own = sum(weight * weight for weight in vector.values())
        alike = sum(weight * total[word] for word, weight in vector.items()) - own
        agreement = min(1.0, max(0.0, alike / (len(frames) - 1)))
        if text is not None and frame.text != text:
            continue
        if frame.confidence * agreement > best_score:
            best, best_score, best_agreement = frame, frame.confidence * agreement, agreement
    return best, best_agreement


def choose_other(frames: Sequence[CaptionedFrame], language: str) -> OtherCaption:
    """The caption in another language that agrees most with the other frames' ones in it.

    As `choose_caption`, with all words counting the same.

    Args:
        frames: of one segment.
        language: that all of them have a caption in.
    """
    captions = [frame.others[language] for frame in frames]
    said = [
        replace(frame, text=each.text, words=each.words, confidence=each.confidence)
        for frame, each in zip(frames, captions, strict=True)
    ]
    chosen, _ = choose_caption(said, None)
    return OtherCaption(chosen.text or "", chosen.words, chosen.confidence)


def _vector(words: Iterable[str], lexicon: Lexicon | None) -> Mapping[str, float]:
    """Unit tf-idf vector of a caption's content lemmas; of all its words without a lexicon."""
    weights: defaultdict[str, float] = defaultdict(float)
    for word in words:
        lemma = None if lexicon is None else lexicon.lemma_of(word)
        if lexicon is None:
            weights[word] += 1
        elif lemma is not None:
            weights[lemma.name] += -math.log(lemma.frequency)
    length = math.sqrt(sum(weight * weight for weight in weights.values()))
    return {word: weight / length for word, weight in weights.items()} if length > 0 else {}


# --- tags ----------------------------------------------------------------------------------


def _video_tags(
    frames: Sequence[CaptionedFrame],
    times: Sequence[tuple[float, float]],
    duration_s: float,
    lexicon: Lexicon | None,
    options: TagOptions,
) -> tuple[VideoTag, ...]:
    shown: dict[tuple[str, str], dict[int, float]] = {}
    for position, frame in enumerate(frames):
        for tag in frame.tags:
            if tag.confidence >= LEAST_FRAME_CONFIDENCE:
                shown.setdefault((tag.name, tag.type), {})[position] = tag.confidence
    lemmas = () if lexicon is None else lexicon.lemmas
    frequencies = {(lemma.name, lemma.type): lemma.frequency for lemma in lemmas}
    tags = []
    for (name, kind), confidences in shown.items():
        spans = _spans(frames, times, confidences, options.max_gap_s)
        covered_s = sum(span.end_s - span.start_s for span in spans)
        sure_s = sum(span.confidence * (span.end_s - span.start_s) for span in spans)
        coverage = min(1.0, covered_s / duration_s) if duration_s > 0 else 1.0
        confidence = sure_s / covered_s if covered_s > 0 else spans[0].confidence
        if confidence < options.min_confidence or coverage < options.min_coverage:
            continue
        score = confidence * coverage * -math.log(frequencies[name, kind])
        tags.append(VideoTag(name, kind, confidence, coverage, score, spans))
    tags.sort(key=lambda tag: (-tag.score, tag.name, tag.type))
    return tuple(tags[: options.max_tags])


def _spans(
    frames: Sequence[CaptionedFrame],
    times: Sequence[tuple[float, float]],
    confidences: Mapping[int, float],
    max_gap_s: float,
) -> tuple[TagSpan, ...]:
    """Join the frames that show a tag over small gaps, never across a cut."""
    groups: list[list[int]] = []
    for position in sorted(confidences):
        last = groups[-1][-1] if groups else None
        if (
            last is not None
            and frames[last].shot == frames[position].shot
            and times[position][0] - times[last][1] <= max_gap_s
        ):
            groups[-1].append(position)
        else:
            groups.append([position])
    spans = []
    for group in groups:
        start_s, end_s = times[group[0]][0], times[group[-1]][1]
        confidence = _mean(confidences, times, range(group[0], group[-1] + 1))
        spans.append(TagSpan(start_s, end_s, confidence, tuple(group)))
    return tuple(spans)
