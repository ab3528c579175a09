from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin.encoders.logmel import FFT, HOP, WINDOW, _filters, describe, mel_power, trimmed
from audit_plugin.inputs.audio import RATE, read_audio
from tests.media_fixtures import tone, write_wav


def mel(hertz: float) -> float:
    return 2595 * np.log10(1 + hertz / 700)


def babble(seed: int, seconds: float = 0.8) -> np.ndarray:
    """Noise and tones that change five times: a stand-in for words."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE / 5)
    parts = [tone(rng.uniform(150, 4000), count / RATE, RATE)[:count] * rng.uniform(0.2, 1) for _ in range(5)]
    return (np.concatenate(parts) + 0.01 * rng.standard_normal(5 * count)).astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("hertz", [440, 1500])
def test_a_tone_stays_in_its_band_at_any_rate(tmp_path, rate: int, hertz: float) -> None:
    (wave,) = read_audio(write_wav(tmp_path / "a.wav", tone(hertz, 0.5, rate), rate)).pieces
    band = int(mel_power(wave).sum(0).argmax())
    # 64 triangles between 50 and 7600 Hz: center k stands at (k + 1) / 65 of the way
    assert band == pytest.approx((mel(hertz) - mel(50)) / (mel(7600) - mel(50)) * 65 - 1, abs=0.6)


def test_frames_are_windowed_spectra_by_the_book() -> None:
    wave = babble(0, 0.1)
    expected = []
    for start in range(0, len(wave) - WINDOW + 1, HOP):
        frame = wave[start : start + WINDOW].astype(np.float64) * np.hanning(WINDOW)
        expected.append(np.abs(np.fft.fft(frame, FFT)[: FFT // 2 + 1]) ** 2 @ _filters())
    np.testing.assert_allclose(mel_power(wave), expected, rtol=1e-9)


def test_loudness_silence_around_and_a_constant_color_matter_little() -> None:
    mine, other = babble(1), babble(2)
    base = describe(mine)
    np.testing.assert_allclose(describe(mine * np.float32(0.125)), base, atol=1e-5)
    silence = np.zeros(HOP * 37, np.float32)
    assert cosine(describe(np.concatenate([silence, mine, silence])), base) > 0.98
    dull = np.convolve(mine, [0.5, 0.3, 0.2], mode="same").astype(np.float32)
    assert cosine(describe(dull), base) > 0.9 > cosine(describe(other), base) + 0.1


def test_order_counts_but_the_same_events_stay_related() -> None:
    one, two, three, four = (babble(seed, 0.4) for seed in (1, 2, 3, 4))
    base = describe(np.concatenate([one, two]))
    turned = describe(np.concatenate([two, one]))
    strange = describe(np.concatenate([three, four]))
    assert 0.999 > cosine(base, turned) > cosine(base, strange) + 0.05


def test_silence_points_somewhere_and_silent_clips_are_alike() -> None:
    short, long = describe(np.zeros(10, np.float32)), describe(np.zeros(RATE, np.float32))
    np.testing.assert_allclose(short, long, atol=1e-6)
    assert np.linalg.norm(short) > 0.05


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4000), st.integers(0, 5), st.floats(1e-30, 1.0))
def test_every_wave_has_finite_numbers_of_one_dimension(length: int, seed: int, peak: float) -> None:
    wave = (np.random.default_rng(seed).uniform(-1, 1, length) * peak).astype(np.float32)
    got = describe(wave)
    assert got.shape == (1013,)
    assert got.dtype == np.float32
    assert np.isfinite(got).all()
    assert got.tobytes() == describe(wave).tobytes()


def test_soft_beginnings_and_ends_are_cut_off() -> None:
    power = np.ones((9, 64)) * np.array([1e-9, 1e-3, 1, 1e-6, 1, 1, 1e-2, 1e-8, 0])[:, None]
    # kept: from the first to the last frame within 35 dB (a factor of 3162) of the loudest
    assert np.round(trimmed(power)[:, 0], 6).tolist() == [-3, 0, -6, 0, 0, -2]
