"""What --video may name: photos, rows of images, several videos, folders and globs of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import demo.command
from demo.batch import folders
from demo.command import name_of
from demo.people import Detector
from demo.video import Video, find_video, find_videos
from lib.errors import UserError
from lib.keypoints import H36M_17
from tests.demo_samples import make_video, number_in, walking


def save(path: Path, number: int, size: tuple[int, int] = (160, 120)) -> None:
    """An image that shows its number as demo_samples.make_video does."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for bit in range(10):
        if number >> bit & 1:
            image[:60, 16 * bit : 16 * bit + 16] = 255
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def shots(tmp_path, monkeypatch) -> Path:
    """shots/a_1.png … a_12.png, and others that are no part of it."""
    for number in range(1, 13):
        save(tmp_path / "shots" / f"a_{number}.png", number)
    (tmp_path / "shots" / "._a_1.png").write_bytes(b"what macOS leaves behind")
    (tmp_path / "shots" / "notes.txt").write_text("none of it")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "numbers", "called"),
    [
        ("shots", range(1, 13), "shots"),
        ("shots/", range(1, 13), "shots"),
        ("shots/a_%d.png", range(1, 13), "a"),
        ("shots/a_%02d.png", range(10, 13), "a"),
        ("shots/*.png", range(1, 13), "shots"),
        ("shots/a_1?.png", range(10, 13), "a_1"),
        ("shots/a_7.png", [7], "a_7"),
    ],
)
def test_images_in_a_row_are_a_video(shots, name, numbers, called):
    """In the order of their numbers, not of their letters."""
    with Video(find_video(name)) as video:
        assert (video.size, video.fps, video.count) == ((160, 120), 0, len(numbers))
        assert [number_in(frame) for frame in video.frames()] == list(numbers)
        np.testing.assert_allclose(video.times, np.arange(len(numbers)) / 25)
    assert name_of(name) == called


def test_an_image_is_read_as_it_is_shown(tmp_path):
    """Turned by its EXIF data, in colours for which JPEG has no room, and in 16 bits."""
    save(tmp_path / "flat.png", 1)
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the stored picture is at the right
    with Image.open(tmp_path / "flat.png") as image:
        image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    deep = np.full((60, 80), 200 * 257, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.new("RGBA", (80, 60), (10, 200, 30, 90)).save(tmp_path / "clear.webp", lossless=True)
    Image.new("CMYK", (80, 60), (0, 255, 255, 0)).save(tmp_path / "print.jpg")

    def read(name: str) -> np.ndarray:
        with Video(str(tmp_path / name)) as video:
            return next(video.frames())

    turned = read("turned.jpg")
    assert turned.shape == (160, 120, 3)
    assert turned[2:14, 64:].mean() > 250 and turned[20:].mean() < 3
    assert (read("deep.png") == 200).all()
    assert tuple(read("clear.webp")[5, 5]) == (30, 200, 10)
    np.testing.assert_allclose(read("print.jpg")[5, 5], (0, 0, 255), atol=40)  # red, as BGR


def test_images_that_do_not_belong_together_are_told(shots):
    save(shots / "shots" / "a_13.png", 13, size=(120, 160))
    with Video("shots") as video, pytest.raises(UserError, match=r"a_13\.png: 120x160, but a_1"):
        list(video.frames())
    (shots / "shots" / "a_13.png").write_bytes(b"no image")
    with Video("shots") as video, pytest.raises(UserError, match=r"a_13\.png: cannot be read"):
        list(video.frames())


def test_folders_and_globs_of_videos_are_each_of_them(shots):
    (shots / "clips").mkdir()
    for name in ("b10.mp4", "b9.MP4", "c.avi", ".hidden.mp4", "readme.md"):
        (shots / "clips" / name).write_bytes(b"")
    assert find_videos(["clips"]) == ["clips/b9.MP4", "clips/b10.mp4", "clips/c.avi"]
    assert find_videos(["clips/b*"]) == ["clips/b9.MP4", "clips/b10.mp4"]
    # What is named twice is done once; rows of images and photos may be among them.
    named = ["clips/c.avi", "clips", "shots", "shots/a_2.png", "rtsp://host/x"]
    assert find_videos(named) == [
        "clips/c.avi", "clips/b9.MP4", "clips/b10.mp4", "shots", "shots/a_2.png", "rtsp://host/x"
    ]  # fmt: skip
    with pytest.raises(UserError, match="3 videos; give one"):
        find_video("clips")


def test_names_that_stand_for_nothing_or_for_too_much_are_told(shots):
    for name in ("none", "none/*.mp4", "shots/b_%d.png", "none.mp4"):
        with pytest.raises(UserError, match="no such file, folder or images"):
            find_videos([name])
    (shots / "empty").mkdir()
    with pytest.raises(UserError, match="a folder without videos or images"):
        find_videos(["empty"])
    (shots / "shots" / "film.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"both 1 videos and 12 images; say which.*\*\.mp4"):
        find_videos(["shots"])


def test_results_of_equal_names_go_to_different_folders():
    names = [name_of(video) for video in ("a/walk.mp4", "b/walk.mov", "walk_2.mp4", "c/walk.avi")]
    found = folders(names, Path("out"))
    assert [folder.name for folder in found] == ["walk", "walk_3", "walk_2", "walk_4"]


class Walker:
    """A detector that sees somebody walk, in every frame of any video."""

    layout = H36M_17

    def __call__(self, frames):
        for _, pose in zip(frames, walking(14)[0], strict=False):
            yield pose[None]


def test_several_videos_in_one_call(checkpoint, tmp_path, monkeypatch, capsys):
    """One cannot be read: it is told, the others are done, and the status is 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo.command, "choose_detector", lambda *_: Detector(Walker))
    Path("clips").mkdir()
    make_video(Path("clips/a.mp4"), 14, size=(640, 480))
    Path("clips/broken.mp4").write_bytes(b"nothing")
    make_video(Path("clips/z.avi"), 9, size=(640, 480))
    save(Path("photo.png"), 3, size=(640, 480))
    arguments = f"--video clips photo.png --checkpoint {checkpoint} --output out --formats npz,mp4"
    assert demo.command.main(arguments.split()) == 1
    told = capsys.readouterr()
    assert "error: clips/broken.mp4: no frame can be read" in told.err
    table = [line.split() for line in told.out.splitlines()[-6:]]
    assert table[0] == ["video", "frames", "people", "seconds", "frames/s"]
    assert [row[0] for row in table[1:5]] == [
        "clips/a.mp4", "clips/broken.mp4", "clips/z.avi", "photo.png"
    ]  # fmt: skip
    assert [row[1] for row in table[1:5]] == ["14", "-", "9", "1"]
    assert " ".join(table[2][5:]).startswith("failed: no frame can be read")  # the name once
    assert " ".join(table[5]) == "3 of 4 videos done"
    assert sorted(str(path) for path in Path("out").rglob("*.*")) == [
        "out/a/a.mp4", "out/a/poses.npz", "out/photo/photo.mp4", "out/photo/poses.npz",
        "out/z/poses.npz", "out/z/z.mp4",
    ]  # fmt: skip
    with Video("out/photo/photo.mp4") as film:  # a photo is shown for two seconds
        assert sum(1 for _ in film.frames()) == 2 and film.times[-1] == pytest.approx(2)


@pytest.mark.parametrize("flags", ["--keypoints a.npz", "--save-keypoints a.npz", "--live"])
def test_what_goes_with_one_video_only_is_told(shots, flags):
    with pytest.raises(UserError, match=f"2 videos, but {flags.split()[0]} goes with one"):
        demo.command.main(["--video", "shots", "shots/a_1.png", *flags.split()])


def test_no_result_replaces_an_image_or_a_video_of_several(checkpoint, shots, monkeypatch):
    make_video(Path("film.mp4"), 5)
    Path("out/film").mkdir(parents=True)
    Path("out/film/film.mp4").symlink_to(Path("film.mp4").absolute())
    before = Path("film.mp4").read_bytes()
    arguments = f"--video film.mp4 shots --checkpoint {checkpoint} --output out"
    monkeypatch.setattr(demo.command, "choose_detector", lambda *_: Detector(Walker))
    with pytest.raises(UserError, match="is read from too"):
        demo.command.main(arguments.split())
    assert Path("film.mp4").read_bytes() == before
