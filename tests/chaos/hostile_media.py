"""Media that attack: each a function (folder) -> value, all generated; none is larger than a few megabytes on disk."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import wave
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.media_fixtures import write_sound, write_still, write_video

READ, FAIL, EITHER = "read", "fail", "either"  # what must become of the medium; `EITHER`: as long as it ends


@dataclass(frozen=True)
class Hostile:
    """One attack."""

    name: str
    modality: str
    make: Callable[[Path], str]  # folder -> value
    outcome: str


CASES: dict[str, Hostile] = {}


def hostile(outcome: str, *modalities: str):
    """Registers a generator for each of the modalities."""

    def register(make):
        for modality in modalities:
            name = f"{make.__name__}-{modality}"
            CASES[name] = Hostile(name, modality, make, outcome)
        return make

    return register


def written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


# --- files that are none -------------------------------------------------------------------------------------------


@hostile(FAIL, "image", "audio", "video")
def pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe.png")
    return str(folder / "pipe.png")


@hostile(FAIL, "image")
def link_to_pipe(folder: Path) -> str:
    os.symlink(pipe(folder), folder / "link.png")
    return str(folder / "link.png")


@hostile(FAIL, "image")
def unix_socket(folder: Path) -> str:
    socket.socket(socket.AF_UNIX).bind(os.path.relpath(folder / "s.png"))  # whole paths may be too long
    return str(folder / "s.png")


for _device in ("zero", "kmsg", "tty", "random", "full"):
    CASES[f"device_{_device}-image"] = Hostile(f"device_{_device}", "image", lambda _, d=_device: f"/dev/{d}", FAIL)
for _number, _path in enumerate(("kmsg", "self/mem", "self/environ", "self/pagemap", "sys/kernel/hostname")):
    CASES[f"proc_{_number}-image"] = Hostile(f"proc_{_path}", "image", lambda _, p=_path: f"/proc/{p}", FAIL)


@hostile(FAIL, "image", "video")
def a_folder(folder: Path) -> str:
    return str(folder)


@hostile(FAIL, "image")
def dangling_link(folder: Path) -> str:
    os.symlink(folder / "nothing.png", folder / "link.png")
    return str(folder / "link.png")


@hostile(FAIL, "image")
def link_loop(folder: Path) -> str:
    os.symlink(folder / "a.png", folder / "b.png")
    os.symlink(folder / "b.png", folder / "a.png")
    return str(folder / "a.png")


@hostile(FAIL, "image", "audio", "video")
def empty(folder: Path) -> str:
    return written(folder / "empty.png", b"")


def sparse(path: Path, head: bytes, size: int) -> str:
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(size)
    return str(path)


@hostile(FAIL, "image")
def sparse_png(folder: Path) -> str:
    return sparse(folder / "a.png", png(4, 4), 5 << 30)


@hostile(FAIL, "audio")
def sparse_wav(folder: Path) -> str:
    return sparse(folder / "a.wav", wav_header(2, 48_000, 16, 0xFFFFFFFF), 5 << 30)


@hostile(FAIL, "audio", "video")
def sparse_mp3(folder: Path) -> str:
    return sparse(folder / "a.mp3", b"ID3\x04\0\0\0\0\0\0", 5 << 30)


@hostile(EITHER, "audio")
def half_sparse_mp3(folder: Path) -> str:
    return sparse(folder / "a.mp3", b"\xff\xfb\x90\x44" + bytes(413), 100 << 20)


# --- names ---------------------------------------------------------------------------------------------------------

NAMES = {
    "concat": "concat:{0}|{0}", "file_url": "file://{0}", "file_protocol": "file:{0}", "http": "http://127.0.0.1:9/a.png",
    "https": "https://127.0.0.1:9/a.mp4", "ftp": "ftp://127.0.0.1/a", "data": "data:image/png;base64,iVBORw0KGgo=",
    "subfile": "subfile,,start,0,end,9,,:{0}", "pipe_protocol": "pipe:0", "command": "|touch mark", "dash": "-",
    "null": "a\0b", "surrogate": "a\ud800b", "long": "x" * 100_000, "newline": "no\nsuch", "option": "--help",
    "member_outside": "/etc/passwd.tar::a@0+10", "member_beyond": "{1}::a.png@999999+100",
    "member_huge": "{1}::a.png@0+999999999999", "member_of_device": "/dev/zero.tar::a.png@0+99",
}  # fmt: skip


def named(template: str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        good = written(folder / "inner.png", png(4, 4))
        return template.format(good, written(folder / "a.tar", bytes(1024))) if len(template) < 999 else template

    return make


for _name, _template in NAMES.items():
    for _modality in ("image", "video") if _name in ("concat", "subfile", "http") else ("image",):
        CASES[f"name_{_name}-{_modality}"] = Hostile(f"name_{_name}", _modality, named(_template), FAIL)


@hostile(READ, "image")
def odd_name(folder: Path) -> str:
    return written(folder / os.fsdecode(b"a\nb\xff$(touch mark);'\"|.png"), png(4, 4))


# --- what is no medium of ours ---------------------------------------------------------------------------------------


@hostile(FAIL, "image", "video")
def postscript(folder: Path) -> str:
    return written(folder / "a.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n%%EOF\n")


def saved(mode: str, size: tuple[int, int], name: str, **options) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, name, **options)
    return file.getvalue()


for _format in ("ICO", "TGA", "PCX", "SGI", "IM", "SPIDER", "PDF", "ICNS", "DDS", "XBM", "EPS"):
    CASES[f"other_{_format}-image"] = Hostile(
        f"other_{_format}",
        "image",
        lambda folder, f=_format: written(
            folder / "a.jpg", saved({"SPIDER": "F", "XBM": "1"}.get(f, "RGB"), (32, 32), f)
        ),
        FAIL,
    )

TEXTS = {
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "html": "<html><script>alert(1)</script></html>",
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n",
    "m3u8_http": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{1}/a.ts\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile '{0}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {1} RTP/AVP 0\n",
    "dash": "<?xml version='1.0'?><MPD><Period><BaseURL>http://127.0.0.1:{1}/</BaseURL></Period></MPD>",
    "image2": "{0}",
}  # fmt: skip


def text_file(text: str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        inner = folder / "inner.wav"
        inner.write_bytes(wav_header(1, 8000, 16, 16_000) + bytes(16_000))
        port = os.environ.get("HOSTILE_PORT", "9")
        return written(folder / "a.mp4", text.replace("{0}", str(inner)).replace("{1}", port).encode())

    return make


for _name, _text in TEXTS.items():
    for _modality in ("audio", "video", "image"):
        CASES[f"text_{_name}-{_modality}"] = Hostile(f"text_{_name}", _modality, text_file(_text), FAIL)


@hostile(FAIL, "image", "audio", "video")
def zip_bomb(folder: Path) -> str:
    with zipfile.ZipFile(folder / "a.png", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", bytes(50_000_000))
    return str(folder / "a.png")


@hostile(FAIL, "image")
def photoshop(folder: Path) -> str:
    head = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3)
    return written(folder / "a.jpg", head + bytes(99))


# --- PNG -----------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, rows: bytes | None = None, extra: bytes = b"", color: int = 2, depth: int = 8
) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = bytes((1 + 3 * width) * height) if rows is None else rows
    parts = (chunk(b"IHDR", head), extra, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


PNGS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "one_wide": (FAIL, lambda: png(1, 100_000_000, b"", color=0, depth=1)),
    "one_high": (FAIL, lambda: png(100_000_000, 1, b"", color=0, depth=1)),
    "thin": (READ, lambda: png(1, 20_000)),
    "thin_lying": (READ, lambda: png(20_000, 1)),
    "panorama": (READ, lambda: png(5_000, 100)),
    "claims_gigapixels": (FAIL, lambda: png(2**31 - 1, 2**31 - 1, b"")),
    "claims_400_megapixels": (FAIL, lambda: png(20_000, 20_000, b"")),
    "claims_90_megapixels": (FAIL, lambda: png(9_500, 9_500, b"")),
    "zero_pixels": (FAIL, lambda: png(0, 0, b"")),
    "data_bomb": (EITHER, lambda: png(10, 10, bytes(200_000_000))),
    "text_bomb": (EITHER, lambda: png(4, 4, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(500_000_000))))),
    "many_texts": (EITHER, lambda: png(4, 4, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000))) * 500)),
    "profile_bomb": (EITHER, lambda: png(4, 4, extra=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(500_000_000))))),
    "no_palette": (EITHER, lambda: png(4, 4, bytes(20), color=3)),
    "sixteen_bits": (READ, lambda: png(4, 4, bytes(36), color=0, depth=16)),
    "sixteen_bit_colors": (READ, lambda: png(4, 4, bytes(100), color=2, depth=16)),
    "torn_sixteen_bit_colors": (FAIL, lambda: png(400, 400, bytes(5000), color=2, depth=16)),
    "odd_depth": (FAIL, lambda: png(4, 4, bytes(36), color=7, depth=13)),
    "claims_frames": (EITHER, lambda: png(4, 4, extra=chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)))),
}
for _name, (_outcome, _make) in PNGS.items():
    for _modality in ("image", "video"):
        CASES[f"png_{_name}-{_modality}"] = Hostile(
            f"png_{_name}", _modality, lambda folder, m=_make: written(folder / "a.png", m()), _outcome
        )


# --- JPEG, GIF, TIFF, BMP, WebP ------------------------------------------------------------------------------------


def patched(data: bytes, *patches: tuple[int, bytes]) -> bytes:
    changed = bytearray(data)
    for at, new in patches:
        changed[at : at + len(new)] = new
    return bytes(changed)


def jpeg(size: tuple[int, int] = (64, 48), **options) -> bytes:
    return saved("RGB", size, "JPEG", **options)


@hostile(EITHER, "image")
def jpeg_wrong_size(folder: Path) -> str:
    data = jpeg()
    return written(folder / "a.jpg", patched(data, (data.index(b"\xff\xc0") + 5, struct.pack(">HH", 9_900, 9_900))))


@hostile(FAIL, "image")
def jpeg_gigantic(folder: Path) -> str:
    data = jpeg()
    return written(folder / "a.jpg", patched(data, (data.index(b"\xff\xc0") + 5, struct.pack(">HH", 65_500, 65_500))))


def many_scans(folder: Path, side: int, repeats: int) -> str:
    """A progressive JPEG whose last scan is repeated: each is decoded over all of the image."""
    data = saved("L", (side, side), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return written(folder / "a.jpg", data[:-2] + data[last:-2] * repeats + data[-2:])


@hostile(EITHER, "image")
def jpeg_many_scans(folder: Path) -> str:
    return many_scans(folder, 2_000, 2_000)


@hostile(EITHER, "image", "video")
def jpeg_exif_loop(folder: Path) -> str:
    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0\x08\0\0\0"
    data = jpeg()
    return written(folder / "a.jpg", data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])


def gif(frames: int, size: tuple[int, int] = (1, 1), screen: tuple[int, int] | None = None) -> bytes:
    screen = screen or size
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<HHHHB", 0, 0, *size, 0) + b"\2\2\x44\1\0"
    return head + frame * frames + b";"


@hostile(READ, "image", "video")
def gif_million_frames(folder: Path) -> str:
    return written(folder / "a.gif", gif(1_000_000))


@hostile(EITHER, "image", "video")
def gif_large_frames(folder: Path) -> str:
    return written(folder / "a.gif", gif(5_000, screen=(9_000, 9_000)))


@hostile(EITHER, "image", "video")
def gif_endless(folder: Path) -> str:
    return written(folder / "a.gif", gif(1)[:-1] + bytes(5_000_000))


@hostile(EITHER, "video")
def gif_frame_outside(folder: Path) -> str:
    return written(folder / "a.gif", gif(3).replace(b",\0\0\0\0", b",\xff\xff\xff\xff"))


def tiff(pages: int, size: tuple[int, int] = (1, 1), loop: bool = False) -> bytes:
    """Gray pages of zeros, all of one strip; with `loop` the last page names the first as the next."""
    count, data_at = 8, 8
    length = 2 + 12 * count + 4
    first = data_at + size[0] * size[1]
    parts = [b"II*\0" + struct.pack("<I", first) + bytes(first - 8)]
    for page in range(pages):
        following = first + (page + 1) * length if page < pages - 1 else first if loop else 0
        tags = ((256, size[0]), (257, size[1]), (258, 8), (259, 1), (262, 1), (273, data_at), (278, size[1]))
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        entries += struct.pack("<HHII", 279, 4, 1, size[0] * size[1])
        parts.append(struct.pack("<H", count) + entries + struct.pack("<I", following))
    return b"".join(parts)


@hostile(READ, "image", "video")
def tiff_many_pages(folder: Path) -> str:
    return written(folder / "a.tif", tiff(100_000))


@hostile(READ, "image", "video")
def tiff_loop(folder: Path) -> str:
    return written(folder / "a.tif", tiff(3, loop=True))


@hostile(FAIL, "image", "video")
def tiff_claims_much(folder: Path) -> str:
    return written(
        folder / "a.tif", tiff(1).replace(struct.pack("<HHII", 256, 4, 1, 1), struct.pack("<HHII", 256, 4, 1, 2**31))
    )


@hostile(EITHER, "video")
def tiff_large_later_page(folder: Path) -> str:
    data = tiff(9)
    at = data.rindex(struct.pack("<HHII", 256, 4, 1, 1))
    return written(folder / "a.tif", patched(data, (at, struct.pack("<HHII", 256, 4, 1, 2**30))))


@hostile(EITHER, "image", "video")
def tiff_deflate_bomb(folder: Path) -> str:
    data = saved("L", (9_000, 9_000), "TIFF", compression="tiff_deflate")
    return written(folder / "a.tif", data)


@hostile(FAIL, "image")
def bmp_huge(folder: Path) -> str:
    return written(folder / "a.bmp", patched(saved("RGB", (4, 4), "BMP"), (18, struct.pack("<ii", 2**30, -(2**30)))))


@hostile(EITHER, "image")
def bmp_negative(folder: Path) -> str:
    return written(folder / "a.bmp", patched(saved("RGB", (4, 4), "BMP"), (18, struct.pack("<ii", -4, -4))))


@hostile(EITHER, "image", "video")
def webp_many_frames(folder: Path) -> str:
    frames = [Image.new("RGB", (2, 2), (number % 256, 0, 0)) for number in range(2_000)]
    frames[0].save(folder / "a.webp", save_all=True, append_images=frames[1:], duration=1)
    return str(folder / "a.webp")


@hostile(FAIL, "image", "video")
def webp_gigantic(folder: Path) -> str:
    head = b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + b"\xff\xff\xff" * 2
    return written(folder / "a.webp", b"RIFF" + struct.pack("<I", len(head)) + head)


@hostile(EITHER, "image")
def ppm_claims_much(folder: Path) -> str:
    return written(folder / "a.ppm", b"P6 9000 9000 255\n" + bytes(100))


@hostile(EITHER, "image")
def jpeg2000_claims_much(folder: Path) -> str:
    data = saved("RGB", (16, 16), "JPEG2000")
    at = data.index(b"\xff\x51")
    return written(folder / "a.jp2", patched(data, (at + 6, struct.pack(">II", 9_000, 9_000))))


# --- sound ---------------------------------------------------------------------------------------------------------


def wav_header(channels: int, rate: int, bits: int, size: int, kind: int = 1) -> bytes:
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels % 65_536, rate, rate * block % 2**32, block % 65_536, bits)
    return (
        b"RIFF"
        + struct.pack("<I", min(size + 36, 2**32 - 1))
        + b"WAVEfmt \x10\0\0\0"
        + form
        + b"data"
        + struct.pack("<I", size)
    )


WAVS: dict[str, tuple[str, tuple[int, ...]]] = {
    "eight_channels": (READ, (8, 8_000, 16, 64_000)),
    "nine_channels": (READ, (9, 8_000, 16, 64_800)),
    "64_channels": (READ, (64, 8_000, 16, 64_000)),
    "255_channels": (FAIL, (255, 8_000, 16, 51_000)),
    "65535_channels": (FAIL, (65_535, 8_000, 16, 64_000)),
    "no_channels": (FAIL, (0, 8_000, 16, 64_000)),
    "one_hertz": (FAIL, (1, 1, 16, 64_000)),
    "gigahertz": (FAIL, (1, 2**31 - 1, 16, 64_000)),
    "claims_much": (EITHER, (1, 8_000, 16, 2**32 - 1)),
    "no_bits": (EITHER, (1, 8_000, 0, 64_000)),
    "many_bits": (EITHER, (1, 8_000, 65_535, 64_000)),
    "adpcm": (EITHER, (1, 8_000, 4, 64_000, 2)),
    "unknown_codec": (FAIL, (1, 8_000, 16, 64_000, 0x7777)),
}
for _name, (_outcome, _numbers) in WAVS.items():
    CASES[f"wav_{_name}-audio"] = Hostile(
        f"wav_{_name}",
        "audio",
        lambda folder, n=_numbers: written(folder / "a.wav", wav_header(*n) + bytes(min(n[3], 64_800))),
        _outcome,
    )


@hostile(EITHER, "audio")
def mp3_giant_tag(folder: Path) -> str:
    return written(folder / "a.mp3", b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(100_000))


# --- videos --------------------------------------------------------------------------------------------------------


def good_video(path: Path, frames: int = 12) -> bytes:
    write_video(path, [(20 * number, 0, 0) for number in range(frames)])
    return path.read_bytes()


@hostile(READ, "video")
def video_of_one_frame(folder: Path) -> str:
    good_video(folder / "a.mp4", 1)
    return str(folder / "a.mp4")


@hostile(READ, "video")
def mkv_without_cues(folder: Path) -> str:
    data = good_video(folder / "a.mkv")
    return written(folder / "b.mkv", data.replace(b"\x1c\x53\xbb\x6b", b"\xec\x53\xbb\x6b"))


MP4 = {
    "no_samples": (b"stsz", 8, struct.pack(">I", 0)),
    "many_samples": (b"stsz", 8, struct.pack(">I", 2**31)),
    "many_times": (b"stts", 4, struct.pack(">I", 2**31 - 1)),
    "long_frames": (b"stts", 12, struct.pack(">I", 2**31 - 1)),
    "offsets_outside": (b"stco", 8, struct.pack(">I", 2**32 - 1)),
    "no_time_scale": (b"mdhd", 12, struct.pack(">I", 0)),
    "days": (b"mdhd", 16, struct.pack(">I", 2**32 - 1)),
    "no_track": (b"trak", 0, b"free"),
    "track_in_itself": (b"mdia", 0, b"trak"),
    "size_of_box": (b"moov", -4, struct.pack(">I", 2**31)),
}


def changed_mp4(box: bytes, at: int, new: bytes) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        data = good_video(folder / "good.mp4")
        start = data.index(box) + (len(box) if at > 0 else 0)
        return written(folder / "a.mp4", patched(data, (start + at, new)))

    return make


for _name, _change in MP4.items():
    CASES[f"mp4_{_name}-video"] = Hostile(f"mp4_{_name}", "video", changed_mp4(*_change), EITHER)


@hostile(FAIL, "video")
def frames_16k(folder: Path) -> str:
    write_video(folder / "good.avi", [(9, 9, 9)] * 4, codec="mjpeg", strict="unofficial")
    data = (folder / "good.avi").read_bytes()
    parts = data.split(b"\xff\xc0\0\x11\x08")
    size = struct.pack(">HH", 16_384, 16_384)
    return written(folder / "a.avi", (b"\xff\xc0\0\x11\x08" + size).join([parts[0], *(part[4:] for part in parts[1:])]))


# --- damaged at random ---------------------------------------------------------------------------------------------


def good_media(folder: Path) -> dict[str, tuple[str, bytes]]:
    """File name -> (modality, bytes) of a good medium of each format."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    media: dict[str, tuple[str, bytes]] = {}
    for name in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, name)
        media[f"a.{name.lower()}"] = ("image", file.getvalue())
    deep = write_still(folder / "deep.png", noise.astype(np.uint16) * 16, "rgb48be")
    media["deep.png"] = ("image", Path(deep).read_bytes())
    with contextlib.suppress(ImportError):  # an extra
        import pillow_heif

        pillow_heif.from_pillow(Image.fromarray(noise)).save(folder / "a.heic")
        media["a.heic"] = ("image", (folder / "a.heic").read_bytes())
    tone = 0.5 * np.sin(np.arange(16_000) / 10)
    for name, codec in (("a.flac", "flac"), ("a.ogg", "libopus"), ("a.mp3", "libmp3lame"), ("a.m4a", "aac")):
        media[name] = ("audio", Path(write_sound(folder / name, np.tile(tone, 3), 48_000, codec)).read_bytes())
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes((tone * 32_767).astype("<i2").tobytes())
    media["a.wav"] = ("audio", (folder / "a.wav").read_bytes())
    for name in ("a.mp4", "a.mkv", "a.avi", "a.webm"):
        codec = "libvpx" if name == "a.webm" else "libx264"
        write_video(folder / name, [(20 * number, 0, 0) for number in range(12)], codec=codec)
        media[name] = ("video", (folder / name).read_bytes())
    for name in ("a.gif", "a.webp"):
        media[f"video.{name}"] = ("video", media.get(name, media["a.gif"])[1])
    return media


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, flipped in up to 20 bits, or a piece of it overwritten."""
    changed = bytearray(data)
    way = rng.integers(3)
    if way == 0:
        return bytes(changed[: rng.integers(len(changed))])
    if way == 1:
        for _ in range(rng.integers(1, 20)):
            changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
        return bytes(changed)
    at = rng.integers(len(changed))
    junk = rng.bytes(int(rng.integers(1, 64)))
    changed[at : at + len(junk)] = junk
    return bytes(changed)
