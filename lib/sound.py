"""The sound of a video, carried into a film that is made of it."""

import warnings
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import TypeAlias

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer

# What browsers play in an MP4 as it is; other sound becomes AAC in stereo or mono.
PLAYED = ("aac", "opus", "flac")
RATE = 48_000  # samples a second of that
Part: TypeAlias = "av.Packet[AudioStream] | av.AudioFrame"


class Sound:
    """The first audio track of a file, from a moment on. Damage ends it, with a warning."""

    def __init__(self, file: InputContainer, track: AudioStream, source: str, start: float) -> None:
        self._file, self._track, self._source, self._start = file, track, source, start
        self._film: OutputContainer | None = None
        self._target: AudioStream | None = None
        self._copied = track.codec_context.name in PLAYED
        self._resampler: av.AudioResampler | None = None
        self._parts = self._read()
        self._next: tuple[float, Part] | None = None

    @classmethod
    def of(cls, source: str, start: float) -> "Sound | None":
        """The sound of a video file, if it has any; start: seconds on the file's own clock."""
        try:
            file = av.open(f"file:{source}", metadata_errors="replace")
        except (av.FFmpegError, ValueError, OSError):
            return None
        track = next(iter(file.streams.audio), None)
        if track is None:
            file.close()
            return None
        return cls(file, track, source, start)

    def join(self, film: OutputContainer) -> None:
        """Adds the track to a film whose header is not written yet."""
        if self._copied:
            self._target = film.add_stream_from_template(self._track)
        else:
            layout = "mono" if self._track.codec_context.channels == 1 else "stereo"
            self._target = film.add_stream("aac", rate=RATE, layout=layout)
            self._resampler = av.AudioResampler("fltp", layout, RATE)
        self._film = film
        self._next = next(self._parts, None)

    def _read(self) -> Iterator[tuple[float, Part]]:
        """Packets, or frames to be encoded anew, each with its seconds in the film, 0 at least."""
        try:
            for packet in self._file.demux(self._track):
                for part in [packet] if self._copied else self._decoded(packet):
                    if part.pts is None or part.time_base is None:
                        continue
                    seconds = float(part.pts * part.time_base) - self._start
                    if seconds >= 0:
                        yield seconds, part
        except (av.FFmpegError, OSError, ValueError) as error:
            warnings.warn(
                f"{self._source}: its sound is damaged ({error}); the film has what is before",
                stacklevel=2,
            )

    def _decoded(self, packet: "av.Packet[AudioStream]") -> Iterator[av.AudioFrame]:
        assert self._resampler is not None
        with suppress(av.InvalidDataError):  # one damaged packet
            for frame in packet.decode():
                yield from self._resampler.resample(frame)

    def write_until(self, seconds: float) -> None:
        """Adds the sound before that moment of the film. Raises OSError: cannot be written."""
        assert self._film is not None and self._target is not None
        while self._next is not None and self._next[0] < seconds:
            _, part = self._next
            assert part.pts is not None and part.time_base is not None
            shift = round(Fraction(self._start) / part.time_base)
            part.pts -= shift
            if isinstance(part, av.Packet):
                part.dts = part.pts
                part.stream = self._target
                self._film.mux(part)
            else:
                self._film.mux(self._target.encode(part))
            self._next = next(self._parts, None)

    def finish(self) -> None:
        """Adds what the encoder still holds. Raises OSError."""
        assert self._film is not None and self._target is not None
        if not self._copied:
            self._film.mux(self._target.encode(None))

    def close(self) -> None:
        with suppress(av.FFmpegError):
            self._file.close()
