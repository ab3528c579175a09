from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from audit_plugin.inputs.audio import Sound
from audit_plugin.inputs.augment import augment_audio, augment_image, augment_text, augment_video
from audit_plugin.inputs.modalities import MODALITIES

CAPTION = "a small brown dog runs over the wet grass"
WAVES = tuple(np.random.default_rng(s).standard_normal(4000).astype(np.float32) * 0.1 for s in range(2))


def picture(width: int = 40, height: int = 30) -> Image.Image:
    """Red tells the column, green the row."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)[None]
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(pixels)


MEDIA = {"image": picture(), "text": CAPTION, "audio": Sound(WAVES, 0.2), "video": [picture(), picture(20, 20)]}


def content(medium: Any) -> Any:
    """Something that can be compared."""
    if isinstance(medium, Sound):
        return [p.tobytes() for p in medium.pieces], medium.seconds
    return [content(m) for m in medium] if isinstance(medium, list) else getattr(medium, "tobytes", lambda: medium)()


@pytest.mark.parametrize("name", MODALITIES)
def test_every_modality_has_views_that_are_drawn_from_their_generator_alone(name: str) -> None:
    augment, medium = MODALITIES[name].augment, MEDIA[name]
    before = content(medium)
    views = [[content(augment(medium, np.random.default_rng(seed))) for seed in range(8)] for _ in range(2)]
    assert views[0] == views[1]
    assert content(medium) == before  # untouched
    assert len({repr(view) for view in views[0]}) > 4
    assert type(augment(medium, np.random.default_rng(0))) is type(medium)


def test_crops_keep_at_least_the_stated_area_and_are_mirrored_half_of_the_time() -> None:
    mirrored = []
    for seed in range(300):
        view = augment_image(picture(400, 300), np.random.default_rng(seed))
        assert view.mode == "RGB"
        share = view.width * view.height / (400 * 300)
        assert 0.6 * 0.8 < share <= 1.0  # wide crops are cut at the edge
        red = np.asarray(view)[..., 0].mean(0)
        mirrored.append(red[0] > red[-1])
    assert 110 < sum(mirrored) < 190


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (300, 2)])
def test_tiny_images_have_views(size: tuple[int, int]) -> None:
    for seed in range(20):
        view = augment_image(picture(*size), np.random.default_rng(seed))
        assert min(view.size) >= 1


def test_all_frames_of_a_video_are_seen_alike() -> None:
    for seed in range(10):
        first, second, alone = (picture() for _ in range(3))
        views = augment_video([first, second], np.random.default_rng(seed))
        assert views[0].tobytes() == views[1].tobytes()
        assert views[0].tobytes() == augment_image(alone, np.random.default_rng(seed)).tobytes()


def test_about_one_word_in_seven_is_dropped_and_the_rest_keep_their_order() -> None:
    words = CAPTION.split()
    shares = []
    for seed in range(400):
        view = augment_text(CAPTION, np.random.default_rng(seed)).split()
        rest = iter(words)
        assert all(word in rest for word in view)  # a subsequence
        shares.append(len(view) / len(words))
    assert np.mean(shares) == pytest.approx(0.85, abs=0.02)


@settings(deadline=None, max_examples=60)
@given(st.text(" ab\n", min_size=1, max_size=12).filter(str.strip), st.integers(0, 1000))
def test_no_text_becomes_empty_and_single_words_stay(text: str, seed: int) -> None:
    view = augment_text(text, np.random.default_rng(seed))
    assert view.strip()
    if len(text.split()) == 1:
        assert view == text


def test_noise_lies_between_20_and_30_decibels_below_the_signal() -> None:
    for seed in range(20):
        view = augment_audio(Sound(WAVES, 0.2), np.random.default_rng(seed))
        assert view.seconds == 0.2
        for piece, original in zip(view.pieces, WAVES, strict=True):
            assert piece.dtype == np.float32
            # undo the roll and the gain by the best match: what remains is the noise
            match = np.fft.irfft(np.fft.rfft(piece) * np.conj(np.fft.rfft(original)))
            shift = int(match.argmax())
            assert min(shift, len(piece) - shift) <= 0.1 * len(piece) + 1
            rolled = np.roll(original, shift).astype(np.float64)
            gain = float(piece @ rolled / (rolled @ rolled))
            assert 0.49 < gain < 2.01
            noise = piece / gain - rolled
            assert 19.5 < 10 * np.log10(np.mean(rolled**2) / np.mean(noise**2)) < 30.5


def test_silence_stays_silent() -> None:
    view = augment_audio(Sound((np.zeros(1, np.float32), np.zeros(100, np.float32)), 0.0), np.random.default_rng(0))
    assert not any(piece.any() for piece in view.pieces)
