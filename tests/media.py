"""Videos as other programs write them: any codec, times, pixel shape, turn and sound."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 48_000  # samples a second of the sound


def encode(
    path: Path,
    frames: Sequence[np.ndarray],
    times: Sequence[float] | None = None,
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    turn: int = 0,
    sound: np.ndarray | None = None,
    sound_codec: str = "aac",
) -> Path:
    """frames: BGR or, for pixels of 16 bits, RGB of 16 bits; times: seconds (25 a second).

    aspect: of a pixel; turn: degrees to the left that a player turns it; sound: samples in -1..1.
    """
    with av.open(str(path), "w") as file:
        track = file.add_stream(codec, rate=25, options=options or {})
        track.height, track.width = frames[0].shape[:2]
        track.pix_fmt = pixels
        track.codec_context.time_base = Fraction(1, 90_000)
        if aspect:
            track.codec_context.sample_aspect_ratio = aspect
        if turn:
            track.set_display_rotation(turn)
        heard = (
            file.add_stream(sound_codec, rate=RATE, layout="mono") if sound is not None else None
        )
        for number, image in enumerate(frames):
            deep = image.dtype == np.uint16
            frame = av.VideoFrame.from_ndarray(image, format="rgb48le" if deep else "bgr24")
            frame.pts = round((number / 25 if times is None else times[number]) * 90_000)
            frame.time_base = Fraction(1, 90_000)
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
        if heard is not None and sound is not None:
            for start in range(0, len(sound), 1024):
                part = sound[None, start : start + 1024].astype(np.float32)
                samples = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                samples.rate, samples.pts, samples.time_base = RATE, start, Fraction(1, RATE)
                file.mux(heard.encode(samples))
            file.mux(heard.encode(None))
    return path


def loudness(path: Path) -> np.ndarray:
    """The largest sample of each hundredth of a second, from the film's time 0."""
    with av.open(str(path)) as file:
        track = file.streams.audio[0]
        heard = np.zeros(0, dtype=np.float32)
        for frame in file.decode(track):
            start = round(frame.time * RATE)
            samples = frame.to_ndarray().reshape(-1, frame.samples)[0]
            heard = np.pad(heard, (0, max(0, start + len(samples) - len(heard))))
            heard[max(0, start) : start + len(samples)] = samples[max(0, -start) :]
    step = RATE // 100
    return np.abs(heard[: len(heard) // step * step]).reshape(-1, step).max(axis=1)
