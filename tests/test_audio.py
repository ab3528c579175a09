from __future__ import annotations

import contextlib
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit_plugin.inputs.audio import Sound, read_audio
from audit_plugin.inputs.files import MediaError
from tests.media_fixtures import tone, write_sound, write_video, write_wav

RATE = 48_000


def why(path: str | Path) -> str:
    with pytest.raises(MediaError) as caught:
        read_audio(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def hertz_of(wave: np.ndarray) -> float:
    """The strongest frequency."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(spectrum.argmax() * RATE / len(wave))


def float_wav(path: Path, values: np.ndarray, rate: int, channels: int = 1) -> str:
    """32-bit floats, which Python's own module cannot write."""
    data = values.astype("<f4").tobytes()
    head = struct.pack("<HHIIHH", 3, channels, rate, rate * 4 * channels, 4 * channels, 32)
    body = b"WAVE" + b"fmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return str(path)


# --- what is heard -------------------------------------------------------------------------------------------------


def test_samples_at_the_own_rate_come_back_as_they_are(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-0.9, 0.9, 5000)
    sound = read_audio(write_wav(tmp_path / "a.wav", wave, RATE))
    assert sound.pieces[0].dtype == np.float32
    assert sound.seconds == pytest.approx(5000 / RATE)
    np.testing.assert_allclose(sound.pieces[0], wave, atol=1e-4)  # 16 bits: steps of 3e-5


@pytest.mark.parametrize("rate", [1000, 7333, 8000, 11_025, 22_050, 44_100, 96_000, 192_000])
def test_any_rate_keeps_pitch_length_and_loudness(tmp_path: Path, rate: int) -> None:
    sound = read_audio(write_wav(tmp_path / "a.wav", tone(220, 2, rate), rate))
    (wave,) = sound.pieces
    assert len(wave) == pytest.approx(2 * RATE, abs=2)
    assert hertz_of(wave) == pytest.approx(220, abs=1)
    assert np.sqrt(np.mean(wave[5000:-5000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(300, 0.5, 16_000), tone(500, 0.5, 16_000)
    mono = read_audio(write_wav(tmp_path / "m.wav", left, 16_000)).pieces[0]
    both = read_audio(write_wav(tmp_path / "b.wav", np.stack([left, left]), 16_000)).pieces[0]
    five = read_audio(write_wav(tmp_path / "f.wav", np.stack([left] * 5), 16_000)).pieces[0]
    np.testing.assert_allclose(both, mono, atol=1e-6)
    np.testing.assert_allclose(five, mono, atol=1e-6)
    mixed = read_audio(write_wav(tmp_path / "x.wav", np.stack([left, right]), 16_000)).pieces[0]
    half = read_audio(write_wav(tmp_path / "h.wav", (left + right) / 2, 16_000)).pieces[0]
    np.testing.assert_allclose(mixed, half, atol=1e-4)


def phases(kind: str, seconds: float = 1.0, rate: int = 16_000) -> np.ndarray:
    """Float `[channels, samples]` whose loudest channel, the last, is 400 Hz."""
    wave = tone(400, seconds, rate)
    noise = np.random.default_rng(0).normal(0, 0.05, (2, len(wave)))
    return {
        "opposite": np.stack([-wave, wave]),
        "opposite, one quieter": np.stack([-0.8 * wave, wave]),
        "opposite, with noise": np.stack([-0.9 * wave, wave]) + noise,
        "two pairs": np.stack([0.5 * wave, -0.5 * wave, -0.9 * wave, wave]),
    }[kind]


@pytest.mark.parametrize("kind", ["opposite", "opposite, one quieter", "opposite, with noise", "two pairs"])
@pytest.mark.parametrize("seconds", [1.0, 120.0])  # read whole, and in windows
def test_of_channels_that_cancel_the_loudest_is_taken(tmp_path: Path, kind: str, seconds: float) -> None:
    channels = phases(kind, seconds)
    sound = read_audio(write_wav(tmp_path / "a.wav", channels, 16_000))
    loudest = read_audio(write_wav(tmp_path / "l.wav", channels[-1], 16_000))
    for piece, expected in zip(sound.pieces, loudest.pieces, strict=True):
        np.testing.assert_allclose(np.abs(piece), np.abs(expected), atol=1e-4)  # of two as loud, either
    assert hertz_of(sound.pieces[0]) == pytest.approx(400, abs=2)


@pytest.mark.parametrize("codec", ["flac", "libmp3lame", "aac", "libopus"])
def test_opposite_phases_are_heard_in_common_formats(tmp_path: Path, codec: str) -> None:
    suffix = {"flac": "flac", "libmp3lame": "mp3", "aac": "m4a", "libopus": "ogg"}[codec]
    rate = RATE if codec == "libopus" else 44_100
    path = write_sound(tmp_path / f"a.{suffix}", phases("opposite", 1.0, rate), rate, codec, "stereo")
    (wave,) = read_audio(path).pieces
    assert hertz_of(wave) == pytest.approx(400, abs=2)
    assert np.sqrt(np.mean(wave[10_000:-10_000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


def test_channels_that_do_not_cancel_are_averaged(tmp_path: Path) -> None:
    wave, other = tone(400, 0.5, 16_000), tone(700, 0.5, 16_000)
    shifted = np.roll(wave, 13)  # by 117 degrees: a correlation of -0.45
    for channels in (
        [wave, 0 * wave],
        [wave, other],
        [wave, shifted],
        [wave, *[0 * wave] * 5],
        [wave, -wave, other, other],
    ):
        mixed = read_audio(write_wav(tmp_path / "a.wav", np.stack(channels), 16_000)).pieces[0]
        mean = read_audio(write_wav(tmp_path / "m.wav", np.mean(channels, axis=0), 16_000)).pieces[0]
        np.testing.assert_allclose(mixed, mean, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.mp3", "libmp3lame", 44_100), ("a.flac", "flac", 44_100), ("a.ogg", "libopus", RATE), ("a.m4a", "aac", 44_100),
     ("a.webm", "libopus", RATE), ("a.mkv", "libopus", RATE)],
)  # fmt: skip
def test_common_formats(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    import av

    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    (wave,) = read_audio(write_sound(tmp_path / name, tone(440, 1, rate), rate, codec)).pieces
    assert len(wave) == pytest.approx(RATE, abs=0.1 * RATE)
    assert hertz_of(wave) == pytest.approx(440, abs=2)
    assert np.sqrt(np.mean(wave[10_000:-10_000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.07)


def test_the_sound_track_of_a_video_is_heard(tmp_path: Path) -> None:
    (wave,) = read_audio(write_video(tmp_path / "v.mp4", [(255, 0, 0)] * 10, sound=True)).pieces
    assert hertz_of(wave) == pytest.approx(440, abs=2)
    assert why(write_video(tmp_path / "silent.mp4", [(255, 0, 0)] * 10)) == "no audio track"


def test_silence_is_no_failure(tmp_path: Path) -> None:
    assert not read_audio(write_wav(tmp_path / "a.wav", np.zeros(800), 8000)).pieces[0].any()


def test_numbers_that_are_none_become_silence_and_peaks_are_scaled(tmp_path: Path) -> None:
    values = tone(440, 0.1, RATE)
    values[[5, 6, 7]] = [np.nan, np.inf, -np.inf]
    (wave,) = read_audio(float_wav(tmp_path / "n.wav", values, RATE)).pieces
    assert wave[[5, 6, 7]].tolist() == [0, 0, 0]
    np.testing.assert_allclose(wave[10:], values[10:], atol=1e-6)
    whole_numbers = 32767 * tone(440, 0.1, RATE)
    (wave,) = read_audio(float_wav(tmp_path / "w.wav", whole_numbers, RATE)).pieces
    np.testing.assert_allclose(wave, whole_numbers / np.abs(whole_numbers).max(), atol=1e-6)
    (wave,) = read_audio(float_wav(tmp_path / "h.wav", np.full(4000, 3e38), 8000)).pieces
    assert np.isfinite(wave).all()
    assert np.abs(wave).max() <= 1


# --- length --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "pieces"), [(9.5, 1), (10, 1), (12, 2), (30.1, 4), (100, 10)])
def test_up_to_a_hundred_seconds_are_read_whole_in_equal_pieces(tmp_path: Path, seconds: float, pieces: int) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * RATE))
    sound = read_audio(write_wav(tmp_path / "a.wav", wave, RATE))
    assert len(sound.pieces) == pieces
    assert {len(p) - len(wave) // pieces for p in sound.pieces} <= {0, 1}
    np.testing.assert_allclose(np.concatenate(sound.pieces), wave, atol=1e-4)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_of_a_long_track_the_middles_of_ten_parts_are_read(tmp_path: Path, name: str) -> None:
    # every half minute has its own pitch: the middle of part k of 10 minutes lies in minute k
    rate = 16_000 if name != "a.ogg" else RATE
    wave = np.concatenate([tone(200 + 50 * minute, 60, rate) for minute in range(10)])
    codec = {"a.flac": "flac", "a.mp3": "libmp3lame", "a.ogg": "libopus"}.get(name)
    path = write_sound(tmp_path / name, wave, rate, codec) if codec else write_wav(tmp_path / name, wave, rate)
    start = time.monotonic()
    sound = read_audio(path)
    assert time.monotonic() - start < 10
    assert sound.seconds == pytest.approx(600, abs=2)
    assert [len(p) for p in sound.pieces] == [10 * RATE] * 10
    assert [round(hertz_of(p)) for p in sound.pieces] == [200 + 50 * minute for minute in range(10)]


def test_windows_begin_where_they_should(tmp_path: Path) -> None:
    ramp = np.linspace(0, 0.9, 200 * 8000)  # the value tells the time
    sound = read_audio(write_wav(tmp_path / "a.wav", ramp, 8000))
    starts = [p[100] / 0.9 * 200 for p in sound.pieces]
    np.testing.assert_allclose(starts, [20 * k + 5 for k in range(10)], atol=0.05)


def test_memory_does_not_grow_with_the_track(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(1800 * 8000), 8000)
    tracemalloc.start()
    read_audio(str(tmp_path / "a.wav"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120e6  # ten windows of 1.9 MB, twice or three times while they are put together


# --- broken files --------------------------------------------------------------------------------------------------


def test_too_short_to_hear(tmp_path: Path) -> None:
    assert why(write_wav(tmp_path / "zero.wav", np.zeros(0), 8000)) == "audio is empty (0 samples)"
    for count in (1, 2, 7):
        sound = read_audio(write_wav(tmp_path / "short.wav", np.full(count, 0.5), 16_000))
        assert 1 <= len(sound.pieces[0]) <= 3 * count
        assert np.isfinite(sound.pieces[0]).all()


def test_absurd_headers_are_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    values = np.zeros(4000)
    assert "audio has 100 samples per second" in why(float_wav(tmp_path / "slow.wav", values, 100))
    assert "samples per second" in why(float_wav(tmp_path / "fast.wav", values, 1_000_000_000))
    message = why(float_wav(tmp_path / "wide.wav", values, 8000, channels=1000))
    assert "channels" in message or "can be read" in message


def test_a_file_that_claims_hours_gives_what_it_has(tmp_path: Path) -> None:
    path = Path(write_wav(tmp_path / "a.wav", tone(440, 1, 8000), 8000))
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", 2**31)  # 37 hours
    path.write_bytes(bytes(content))
    with contextlib.suppress(MediaError):
        assert sum(map(len, read_audio(str(path)).pieces)) == pytest.approx(RATE, abs=5)


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.ogg", "a.m4a", "a.wav"])
def test_half_a_file_gives_its_beginning_or_a_reason(tmp_path: Path, name: str) -> None:
    rate, codec = (RATE, {"mp3": "libmp3lame", "flac": "flac", "ogg": "libopus", "m4a": "aac"}.get(name[2:]))
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * rate)
    path = Path(write_sound(tmp_path / name, wave, rate, codec) if codec else write_wav(tmp_path / name, wave, rate))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if name in ("a.flac", "a.m4a"):  # their headers name the whole length, or are at the end
        assert "damaged" in why(path)
    else:
        assert 1.5 < read_audio(str(path)).seconds < 3


def test_lists_of_other_files_are_not_followed(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "a.wav", tone(440, 1, 8000), 8000)
    (tmp_path / "a.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{wav}\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.mp3").write_text(f"ffconcat version 1.0\nfile '{wav}'\n")
    for name in ("a.m3u8", "list.mp3"):
        assert "not audio that can be read" in why(tmp_path / name)
    for name in (f"concat:{wav}", f"file:{wav}", "https://127.0.0.1/a.wav"):
        assert why(name) == "file not found"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 3000), st.binary(min_size=1, max_size=30), st.sampled_from(["wav", "flac"]))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path: Path, at: int, junk: bytes, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if not (good := tmp_path / f"good.{kind}").exists():
        wave = tone(440, 0.2, 8000)
        write_wav(good, wave, 8000) if kind == "wav" else write_sound(good, wave, 8000, "flac")
    content = bytearray(good.read_bytes())
    content[at % len(content) : at % len(content) + len(junk)] = junk
    path.write_bytes(bytes(content))
    with contextlib.suppress(MediaError):  # any other exception fails the test
        sound = read_audio(str(path))
        assert isinstance(sound, Sound)
        assert all(len(p) and np.isfinite(p).all() for p in sound.pieces)
