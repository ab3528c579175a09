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
from PIL import Image

from audit_plugin.inputs import video
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.video import read_video
from tests.media_fixtures import SIZE, tone, write_clock, write_sound, write_video, write_wav
from tests.test_modalities import png_header


def why(path: str | Path) -> str:
    with pytest.raises(MediaError) as caught:
        read_video(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def grey(level: int) -> tuple[int, int, int]:
    return (level, level, level)


def levels(path: str) -> list[int]:
    """The grey of each frame's middle."""
    return [frame.getpixel((frame.width // 2, frame.height // 2))[0] for frame in read_video(path)]


def are_close(actual: list[int], expected: list[int], tolerance: int = 4) -> bool:
    return len(actual) == len(expected) and max(abs(a - b) for a, b in zip(actual, expected, strict=True)) <= tolerance


def clock_of(frame: Image.Image) -> int:
    """The number that `write_clock` drew into a frame."""
    bits = np.asarray(frame.convert("L")).reshape(3, SIZE[1] // 3, 4, SIZE[0] // 4).mean((1, 3)) > 127
    return int(bits.ravel() @ (1 << np.arange(12)))


# --- which frames --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.mp4", "libx264", 10), ("a.mkv", "libx264", 30), ("a.webm", "libvpx", 10), ("a.avi", "mpeg4", 10),
     ("a.ts", "libx264", 25), ("a.h264", "libx264", 25), ("a.mpg", "mpeg2video", 25)],
)  # fmt: skip
def test_the_middles_of_eight_parts_are_shown(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    import av

    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = write_video(tmp_path / name, [grey(8 * number) for number in range(24)], rate, codec, b="2000000")
    frames = read_video(path)
    assert {(frame.mode, frame.size) for frame in frames} == {("RGB", SIZE)}
    # each part holds 3 frames: the middle ones are 1, 4, 7, ...; these three have a poor clock or none
    tolerance = 14 if name in ("a.h264", "a.ts", "a.mpg") else 5
    assert are_close(levels(path), [8 * (3 * part + 1) for part in range(8)], tolerance)


def test_short_videos_have_fewer_frames(tmp_path: Path) -> None:
    for count in (1, 2, 5):
        path = write_video(tmp_path / f"{count}.mp4", [grey(40 * (number + 1)) for number in range(count)])
        assert are_close(levels(path), [40 * (number + 1) for number in range(count)])


@pytest.mark.parametrize("distance", ["25", "500", "100000"])  # frames between key frames; the last: one in all
def test_a_long_video_is_sought_not_decoded(tmp_path: Path, distance: str) -> None:
    path = write_video(tmp_path / "a.mp4", [grey(number // 10) for number in range(2400)], 20, g=distance, bf="0")
    tracemalloc.start()
    start = time.monotonic()
    frames = levels(path)  # 2 minutes; the moments are frames 150, 450, 750, ...
    assert time.monotonic() - start < 10
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert are_close(frames, [(300 * part + 150) // 10 for part in range(8)], 4)
    assert frames == sorted(frames)


# key frames are `keys` frames apart; in all of these, frames are 1/10 or 1/25 s long
CLOCKS = [
    ("a.mp4", "libx264", 10, 3000, {"keys": 10**6}),  # one in all, in 300 s
    ("a.mp4", "libx264", 25, 1500, {"keys": 50}),
    ("a.mp4", "libx264", 25, 1500, {"keys": 400, "bf": "3", "b-pyramid": "normal"}),
    ("a.mp4", "libx264", 10, 600, {"keys": 10**6, "bf": "8"}),
    ("a.mp4", "libx265", 10, 300, {"keys": 10**6, "x265-params": "log-level=none:keyint=100000"}),
    ("a.mkv", "libx264", 10, 600, {"keys": 10**6}),
    ("a.ts", "libx264", 10, 600, {"keys": 10**6}),
    ("a.ts", "libx264", 25, 1500, {"keys": 100}),
    ("a.avi", "mpeg4", 10, 600, {"keys": 600}),
    ("a.avi", "mpeg4", 10, 600, {"keys": 60}),
    ("a.webm", "libvpx", 10, 300, {"keys": 10**6, "deadline": "realtime", "cpu-used": "8"}),
    ("a.mpg", "mpeg2video", 25, 1000, {"keys": 250, "bf": "2"}),
    ("a.h264", "libx264", 25, 1000, {"keys": 10**6, "bf": "0"}),  # has no clock, and cannot seek
]


@pytest.mark.parametrize(("name", "codec", "rate", "count", "options"), CLOCKS)
def test_long_videos_show_the_moment_that_was_asked_for(
    tmp_path: Path, name: str, codec: str, rate: int, count: int, options: dict[str, str]
) -> None:
    import av

    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    options = {**options, "g": str(options["keys"]), "sc_threshold": "0"}
    del options["keys"]
    path = write_clock(tmp_path / name, count, rate, codec, **options)
    start = time.process_time()
    shown = [clock_of(frame) for frame in read_video(path)]
    assert time.process_time() - start < 15  # the limit of a worker process is 40 s
    expected = [(part + 0.5) / 8 * count for part in range(8)]
    assert len(shown) == 8
    # an MPEG program stream declares a duration that is off by a few per cent
    tolerance = 0.04 * count if name == "a.mpg" else 1
    assert max(abs(a - b) for a, b in zip(shown, expected, strict=True)) <= tolerance


def test_the_work_is_bounded_and_what_it_cannot_reach_is_no_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clock(tmp_path / "a.mp4", 600, 10, "libx264", g="100000", sc_threshold="0", bf="0")
    frame = SIZE[0] * SIZE[1] + video.FRAME_WORK
    monkeypatch.setattr(video, "MAX_WORK", 400 * frame)  # of 600 frames: the last lies in the sixth part
    assert [clock_of(shown) for shown in read_video(path)] == [37, 112, 187, 262, 337, 399]
    monkeypatch.setattr(video, "MAX_WORK", 100 * frame)
    assert why(path) == (
        "video has too few key frames: 6 of its 8 parts would take too long to reach; write it again with one every "
        "few seconds (ffmpeg -g 250)"
    )
    # a key frame in the same part stands for a moment that is out of reach
    path = write_clock(tmp_path / "b.mp4", 600, 10, "libx264", g="50", sc_threshold="0", bf="0")
    assert [clock_of(shown) // 75 for shown in read_video(path)] == list(range(8))


def test_frames_are_bounded_in_size(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 1500), "teal").save(tmp_path / "a.webp")
    assert [f.size for f in read_video(str(tmp_path / "a.webp"))] == [(768, 384)]


def test_a_video_filmed_on_its_side_is_shown_upright(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    pixels[:, : SIZE[0] // 2] = 255  # the left is white
    import av

    with av.open(str(path), "w") as media:
        stream = media.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        media.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        media.mux(stream.encode(None))
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # the matrix of the track header: a b u c d v x y w
    one = 0x10000
    # x' = a x + c y, y' = b x + d y with a = d = 0, b = 1, c = -1: a quarter turn clockwise
    content[at : at + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, SIZE[1] * one, 0, 1 << 30)
    path.write_bytes(bytes(content))
    (frame,) = read_video(str(path))
    assert frame.size == (SIZE[1], SIZE[0])
    assert frame.getpixel((20, 5))[0] > 240  # left went up
    assert frame.getpixel((20, 60))[0] < 15


# --- animated images -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_animated_images_are_videos(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (20, 10), grey(10 * number)) for number in range(24)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=40, lossless=True)
    assert are_close(levels(str(tmp_path / name)), [10 * (3 * part + 1) for part in range(8)], 2)


def test_transparency_of_an_animation_is_laid_on_white(tmp_path: Path) -> None:
    frames = [Image.new("RGBA", (8, 8), (200, 0, 0, alpha)) for alpha in (0, 255)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    first, second = read_video(str(tmp_path / "a.webp"))
    assert (first.getpixel((4, 4)), second.getpixel((4, 4))) == ((255, 255, 255), (200, 0, 0))


def test_a_still_image_is_one_frame(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp", "a.bmp", "a.gif"):
        Image.new("RGB", (8, 6), grey(100)).save(tmp_path / name)
        assert are_close(levels(str(tmp_path / name)), [100])


# --- broken files --------------------------------------------------------------------------------------------------


def test_sound_is_no_video(tmp_path: Path) -> None:
    assert why(write_wav(tmp_path / "a.wav", tone(440, 1, 8000), 8000)) == "no video track"


def test_the_cover_of_a_song_is_no_video(tmp_path: Path) -> None:
    import av

    song = Path(write_sound(tmp_path / "a.mp3", tone(440, 1, 44_100), 44_100, "libmp3lame"))
    Image.new("RGB", (16, 16), "red").save(tmp_path / "c.jpg")
    picture = b"\0image/jpeg\0\x03\0" + (tmp_path / "c.jpg").read_bytes()
    frame = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    size = bytes((len(frame) >> shift) & 127 for shift in (21, 14, 7, 0))
    song.write_bytes(b"ID3\x03\0\0" + size + frame + song.read_bytes())
    with av.open(str(song)) as media:
        assert len(media.streams.video) == 1
    assert why(song) == "no video track"


def test_a_size_over_the_limit_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_header(10_100, 10_000))
    assert why(tmp_path / "a.png") == "video has 101 megapixels, the limit is 100"
    (tmp_path / "b.png").write_bytes(png_header(60_000, 60_000))
    assert why(tmp_path / "b.png") == "video is over the limit of 100 megapixels"
    path = Path(write_video(tmp_path / "a.avi", [grey(9)] * 3, codec="mpeg4"))
    content = bytearray(path.read_bytes())
    at = content.index(b"strf") + 8 + 4  # width and height of the bitmap header
    content[at : at + 8] = struct.pack("<ii", 30_000, 30_000)
    path.write_bytes(bytes(content))
    with contextlib.suppress(MediaError):
        assert all(f.size == SIZE for f in read_video(str(path)))  # the stream itself knows better


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.gif", "a.webp"])
def test_half_a_file_gives_its_beginning_or_a_reason(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 3))
    if name in ("a.gif", "a.webp"):
        frames = [Image.new("RGB", (20, 10), tuple(map(int, color))) for color in noise]
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    else:
        colors = [(int(r), int(g), int(b)) for r, g, b in noise]
        write_video(tmp_path / name, colors, codec="libvpx" if name == "a.webm" else "mpeg4")
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with contextlib.suppress(MediaError):
        assert 1 <= len(read_video(str(path))) <= 8


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 4000), st.binary(min_size=1, max_size=30), st.sampled_from(["mp4", "mkv", "webp"]))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path: Path, at: int, junk: bytes, kind: str) -> None:
    good = tmp_path / f"good.{kind}"
    if not good.exists() and kind == "webp":
        Image.new("RGB", (8, 8), "red").save(good, save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")])
    elif not good.exists():
        write_video(good, [grey(9), grey(200), grey(90)])
    content = bytearray(good.read_bytes())
    content[at % len(content) : at % len(content) + len(junk)] = junk
    (tmp_path / f"a.{kind}").write_bytes(bytes(content))
    with contextlib.suppress(MediaError):  # any other exception fails the test
        assert 1 <= len(read_video(str(tmp_path / f"a.{kind}"))) <= 8
