"""Segments, captions by consensus and tags from frames made by hand: exact values."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.model.tags import Tag
from captioner.tagging.options import TagOptions
from captioner.tagging.timeline import (
    CaptionedFrame,
    Segment,
    Shot,
    Timeline,
    build_timeline,
    choose_caption,
)
from captioner.text.lexicon import Lemma, Lexicon

# "dog" is on half of the training images, "man" on all but a few.
LEMMAS = [
    Lemma("dog", "noun", 0.5),
    Lemma("man", "noun", 0.9),
    Lemma("run", "verb", 0.25),
    Lemma("snowboard", "noun", 0.01),
]
WORDS = ["a", "dog", "dogs", "man", "runs", "running", "snowboard"]
LEXICON = Lexicon(WORDS, LEMMAS, [-1, 0, 0, 1, 2, 2, 3])
KEEP_ALL = TagOptions(min_confidence=0.0, min_coverage=0.0)


def frame(
    time_s: float,
    text: str = "a dog",
    *,
    shot: int = 0,
    new: bool = False,
    confidence: float = 0.5,
    until: float | None = None,
    **tags: float,
) -> CaptionedFrame:
    types = {lemma.name: lemma.type for lemma in LEMMAS}
    found = [Tag(name, types[name], value) for name, value in tags.items()]
    return CaptionedFrame(
        time_s=time_s,
        frame_index=round(time_s * 25),
        shot=shot,
        starts_segment=new,
        text=text,
        words=tuple(text.split()),
        confidence=confidence,
        avg_logprob=math.log(confidence),
        tags=tuple(found),
        until_s=until,
    )


def build(
    frames: list[CaptionedFrame],
    duration_s: float,
    cuts_s: tuple[float, ...] = (),
    options: TagOptions = KEEP_ALL,
) -> Timeline:
    return build_timeline(frames, cuts_s, duration_s, LEXICON, options)


def spans_of(timeline: Timeline, name: str) -> list[tuple[float, float, float, tuple[int, ...]]]:
    (tag,) = [tag for tag in timeline.tags if tag.name == name]
    return [
        (span.start_s, span.end_s, pytest.approx(span.confidence), span.frames)
        for span in tag.spans
    ]


# --- shots and segments --------------------------------------------------------------------


def test_shots_reach_from_cut_to_cut() -> None:
    frames = [frame(0), frame(1.5, shot=1), frame(4, shot=2)]
    assert build(frames, 5.0, (1.2, 3.4)).shots == (Shot(0, 1.2), Shot(1.2, 3.4), Shot(3.4, 5))


def test_frames_that_show_the_same_are_one_segment() -> None:
    same = [frame(3, "a man", new=True), frame(4, "a man")]
    frames = [frame(0, new=True), frame(1), frame(2), *same]
    first, second = build(frames, 5.0).segments
    # A frame stands for the time that is nearer to it than to any other frame.
    assert (first.start_s, first.end_s, first.frames) == (0, 2.5, (0, 1, 2))
    assert (second.start_s, second.end_s, second.frames) == (2.5, 5.0, (3, 4))


def test_a_frame_stands_for_all_the_time_that_it_is_shown() -> None:
    # A slide until 10 s, one until 12 s, and a film of 25 frames a second.
    frames = [
        frame(0, new=True, until=10),
        frame(10, "a man", new=True, until=12),
        frame(12, new=True, until=12.04),
        frame(13, "a man", new=True, until=13.04),
    ]
    found = [(each.start_s, each.end_s) for each in build(frames, 14.0).segments]
    assert found == [(0, 10), (10, 12), (12, 12.5), (12.5, 14)]
    # It is over where its shot is.
    (first, second) = build([frame(0, until=9), frame(9, shot=1)], 12.0, (9.0,)).segments
    assert (first.end_s, second.start_s) == (9.0, 9.0)


def test_a_cut_ends_a_segment_at_its_very_time() -> None:
    # The second shot shows the same thing: no new segment was asked for.
    frames = [frame(0, new=True), frame(1), frame(2, shot=1), frame(3, shot=1)]
    first, second = build(frames, 4.0, (1.2,)).segments
    assert (first.start_s, first.end_s, first.shot, first.frames) == (0, 1.2, 0, (0, 1))
    assert (second.start_s, second.end_s, second.shot, second.frames) == (1.2, 4.0, 1, (2, 3))


def test_neighbours_in_one_shot_with_one_caption_are_one_segment() -> None:
    frames = [
        frame(0, "a dog", new=True, confidence=0.3, dog=0.9),
        frame(1, "a dog runs", new=True, confidence=0.4, dog=0.5),
        frame(2, "a man", confidence=0.2),
        frame(3, "a dog runs", new=True, confidence=0.6, dog=0.7),
        frame(4, "a dog runs", shot=1, new=True, confidence=0.7, dog=0.7),
        frame(5, "a dog runs", shot=1, new=True, confidence=0.7, dog=0.7),
    ]
    first, second, third = build(frames, 6.0, (3.8,)).segments
    assert (first.text, first.frames) == ("a dog", (0,))
    # Of the frames with that caption the surest; the other two agree with it by 1 and by 0.
    assert (second.text, second.frames, second.shot) == ("a dog runs", (1, 2, 3), 0)
    assert (second.start_s, second.end_s, second.confidence) == (0.5, 3.8, 0.6)
    assert second.agreement == pytest.approx(0.5)
    dog = (0.5 * 1 + 0.7 * 1.3) / 3.3
    assert second.tags == (Tag("dog", "noun", pytest.approx(dog)),)
    # A cut keeps them apart.
    assert (third.text, third.frames, third.shot) == ("a dog runs", (4, 5), 1)


def test_a_shot_without_a_frame_has_no_segment() -> None:
    frames = [frame(0, new=True), frame(5, shot=2)]
    timeline = build(frames, 6.0, (2.0, 4.0))
    assert timeline.shots == (Shot(0, 2), Shot(2, 4), Shot(4, 6))
    assert [(s.start_s, s.end_s, s.shot) for s in timeline.segments] == [(0, 2, 0), (4, 6, 2)]


def test_a_part_of_a_video() -> None:
    frames = [frame(20, new=True, dog=0.5), frame(21, "a man", shot=1, new=True)]
    timeline = build_timeline(frames, (20.5,), 22.0, LEXICON, KEEP_ALL, start_s=20.0)
    assert timeline.shots == (Shot(20, 20.5), Shot(20.5, 22))
    assert [(s.start_s, s.end_s) for s in timeline.segments] == [(20, 20.5), (20.5, 22)]
    assert timeline.tags[0].coverage == 0.25


def test_no_frames() -> None:
    assert build([], 3.0) == Timeline((Shot(0, 3.0),), (), ())


@given(
    st.lists(st.tuples(st.floats(0.01, 5), st.booleans(), st.booleans()), min_size=1, max_size=30)
)
def test_segments_cover_the_video_without_gap_or_overlap(
    steps: list[tuple[float, bool, bool]],
) -> None:
    now, shot, cuts, frames = 0.0, 0, [], []
    for step, new, cut in steps:
        if cut and frames:
            shot += 1
            cuts.append(now - step / 3)
        frames.append(frame(now, shot=shot, new=new, dog=0.5))
        now += 2 * step
    # Cuts lie between the frames, as the reader gives them.
    cuts = [
        (frames[i].time_s + frames[i + 1].time_s) / 2
        for i in range(len(frames) - 1)
        if frames[i].shot != frames[i + 1].shot
    ]
    timeline = build(frames, now, tuple(cuts))
    ends = [0.0, *(segment.end_s for segment in timeline.segments)]
    assert [segment.start_s for segment in timeline.segments] == ends[:-1]
    assert ends[-1] == now
    for segment in timeline.segments:
        assert segment.start_s < segment.end_s
        assert not any(segment.start_s < cut < segment.end_s for cut in cuts)
        for position in segment.frames:
            assert segment.start_s <= frames[position].time_s < segment.end_s
    positions = [position for segment in timeline.segments for position in segment.frames]
    assert positions == list(range(len(frames)))
    (tag,) = timeline.tags
    assert tag.coverage == pytest.approx(1)
    assert tag.confidence == pytest.approx(0.5)


# --- the caption of a segment --------------------------------------------------------------


def test_one_frame_speaks_for_itself() -> None:
    only = frame(0, "a man", confidence=0.3)
    assert choose_caption([only], LEXICON) == (only, 1.0)


def test_the_caption_that_the_others_agree_with_is_taken() -> None:
    frames = [
        frame(0, "a snowboard", confidence=0.6),
        frame(1, "a dog runs"),
        frame(2, "a dog"),
        frame(3, "a dogs running"),
    ]
    chosen, agreement = choose_caption(frames, LEXICON)
    # tf-idf by hand: "dog" weighs log 2, "run" log 4 = 2 log 2, so "dog run" is (1, 2) / sqrt 5.
    with_dog = 1 / math.sqrt(5)
    assert chosen is frames[1]
    assert agreement == pytest.approx((0 + with_dog + 1) / 3)


def test_confidence_decides_between_captions_that_say_the_same() -> None:
    frames = [frame(0, "a dog", confidence=0.4), frame(1, "a dogs", confidence=0.5)]
    assert choose_caption(frames, LEXICON) == (frames[1], pytest.approx(1.0))


def test_of_equals_the_earliest_is_taken() -> None:
    frames = [frame(0, "a dog"), frame(1, "a dogs"), frame(2, "a dog")]
    assert choose_caption(frames, LEXICON)[0] is frames[0]


def test_captions_without_content_agree_with_nothing() -> None:
    frames = [frame(0, "a a"), frame(1, "a")]
    assert choose_caption(frames, LEXICON) == (frames[0], 0.0)


def test_without_a_lexicon_all_words_count_the_same() -> None:
    frames = [frame(0, "a dog"), frame(1, "a man"), frame(2, "a man runs")]
    chosen, agreement = choose_caption(frames, None)
    # "a man" with "a dog": 1/2; with "a man runs": 2 / sqrt(2 * 3).
    assert chosen is frames[1]
    assert agreement == pytest.approx((1 / 2 + 2 / math.sqrt(6)) / 2)


def test_a_segment_carries_its_caption_and_the_mean_of_its_tags() -> None:
    frames = [
        frame(0, "a dog", confidence=0.4, dog=0.8, man=0.2),
        frame(1, "a dog", confidence=0.5, dog=0.6, man=0.4),
        frame(4, "a man", confidence=0.3, man=0.9),
    ]
    (segment,) = build(frames, 5.0, options=TagOptions(min_confidence=0.25)).segments
    # The frames stand for 0.5 s, 2 s and 2.5 s.
    man, dog = (0.2 * 0.5 + 0.4 * 2 + 0.9 * 2.5) / 5, (0.8 * 0.5 + 0.6 * 2) / 5
    assert segment == Segment(
        start_s=0,
        end_s=5,
        shot=0,
        text="a dog",
        confidence=0.5,
        avg_logprob=math.log(0.5),
        agreement=pytest.approx(0.5),
        frames=(0, 1, 2),
        tags=(Tag("man", "noun", pytest.approx(man)), Tag("dog", "noun", pytest.approx(dog))),
    )


def test_a_segments_tags_obey_the_options() -> None:
    frames = [frame(0, dog=0.8, man=0.5, run=0.29)]
    (segment,) = build(frames, 1.0, options=TagOptions(min_confidence=0.3)).segments
    assert [tag.name for tag in segment.tags] == ["dog", "man"]
    (segment,) = build(frames, 1.0, options=TagOptions(min_confidence=0.3, max_tags=1)).segments
    assert [tag.name for tag in segment.tags] == ["dog"]


# --- tags ----------------------------------------------------------------------------------


def test_a_tag_holds_where_its_frames_are() -> None:
    frames = [frame(0), frame(1, dog=0.6), frame(2, dog=0.8), frame(3), frame(4)]
    timeline = build(frames, 5.0)
    assert spans_of(timeline, "dog") == [(0.5, 2.5, 0.7, (1, 2))]
    (tag,) = timeline.tags
    assert (tag.type, tag.coverage) == ("noun", pytest.approx(2 / 5))
    assert tag.confidence == pytest.approx(0.7)
    assert tag.score == pytest.approx(0.7 * 0.4 * math.log(2))


def test_small_gaps_are_closed_and_count_as_nothing() -> None:
    frames = [frame(0, dog=0.6), frame(1), frame(2, dog=0.9), frame(3), frame(4), frame(5)]
    frames += [frame(6, dog=0.5)]
    timeline = build(frames, 7.0, options=TagOptions(0.0, 0.0, max_gap_s=1.0))
    mean = (0.6 * 0.5 + 0.9 * 1) / 2.5
    assert spans_of(timeline, "dog") == [(0, 2.5, mean, (0, 2)), (5.5, 7.0, 0.5, (6,))]
    timeline = build(frames, 7.0, options=TagOptions(0.0, 0.0, max_gap_s=0.9))
    assert len(spans_of(timeline, "dog")) == 3


def test_spans_never_cross_a_cut() -> None:
    frames = [frame(0, dog=0.6), frame(1, dog=0.6, shot=1)]
    assert spans_of(build(frames, 2.0, (0.8,)), "dog") == [
        (0, 0.8, 0.6, (0,)),
        (0.8, 2.0, 0.6, (1,)),
    ]


def test_a_word_on_one_frame_in_sixty_does_not_tag_the_video() -> None:
    frames = [frame(t, man=0.5, **({"snowboard": 1.0} if t == 30 else {})) for t in range(60)]
    timeline = build(frames, 60.0, options=TagOptions())
    assert [tag.name for tag in timeline.tags] == ["man"]
    # Its frame and its segment have it all the same.
    assert frames[30].tags[1] == Tag("snowboard", "noun", 1.0)
    three = [frame(t, **({"snowboard": 1.0} if 30 <= t < 33 else {})) for t in range(60)]
    (tag,) = build(three, 60.0, options=TagOptions()).tags
    assert (tag.name, tag.coverage) == ("snowboard", pytest.approx(3 / 60))


def test_what_every_caption_says_ranks_below_what_few_say() -> None:
    frames = [frame(0, man=0.9, snowboard=0.4), frame(1, man=0.9)]
    snowboard, man = build(frames, 2.0).tags
    assert (snowboard.name, man.name) == ("snowboard", "man")
    assert snowboard.score == pytest.approx(0.4 * 0.25 * math.log(100))
    assert man.score == pytest.approx(0.9 * 1.0 * math.log(1 / 0.9))


def test_an_unlikely_word_is_not_shown_by_its_frame() -> None:
    frames = [frame(0, dog=0.09), frame(1, dog=0.11)]
    assert spans_of(build(frames, 2.0), "dog") == [(0.5, 2.0, 0.11, (1,))]


def test_thresholds_and_the_number_of_tags() -> None:
    frames = [frame(0, dog=0.3, man=0.5, run=0.29), frame(9, man=0.5, snowboard=0.9)]
    all_tags = {tag.name for tag in build(frames, 10.0).tags}
    assert all_tags == {"dog", "man", "run", "snowboard"}
    kept = build(frames, 10.0, options=TagOptions(min_confidence=0.3, min_coverage=0.0)).tags
    assert {tag.name for tag in kept} == {"dog", "man", "snowboard"}
    kept = build(frames, 10.0, options=TagOptions(min_confidence=0.0, min_coverage=0.6)).tags
    assert {tag.name for tag in kept} == {"man"}
    kept = build(frames, 10.0, options=TagOptions(0.0, 0.0, max_tags=2)).tags
    assert [tag.name for tag in kept] == [tag.name for tag in build(frames, 10.0).tags][:2]
    assert build(frames, 10.0, options=TagOptions(max_tags=0)).tags == ()


def test_a_video_of_no_length_still_has_its_tags() -> None:
    timeline = build([frame(0, dog=0.5)], 0.0)
    assert timeline.segments[0].tags == (Tag("dog", "noun", 0.5),)
    (tag,) = timeline.tags
    assert (tag.confidence, tag.coverage) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_confidence": 1.1}, "min_confidence=1.1: give a number from 0 to 1"),
        ({"min_confidence": math.nan}, "min_confidence=nan: give a number from 0 to 1"),
        ({"min_coverage": -0.1}, "min_coverage=-0.1: give a number from 0 to 1"),
        ({"min_coverage": "half"}, "min_coverage='half': give a number from 0 to 1"),
        ({"max_gap_s": -1}, "max_gap_s=-1: give a number of at least 0"),
        ({"max_tags": -1}, "max_tags=-1: give a whole number of at least 0"),
        ({"max_tags": 2.5}, "max_tags=2.5: give a whole number of at least 0"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        TagOptions(**options)
