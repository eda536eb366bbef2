"""Keypoint files that cannot be what they say, and whatever else stands in one: a sentence."""

import gzip
import io
import json
import zipfile

import numpy as np
import pytest

from demo.keypoint_files import read_keypoints
from lib.errors import UserError
from tests.demo_samples import standing
from tests.keypoint_samples import (
    BLAZE,
    BODY_25B,
    CLIP,
    COLUMNS,
    FRAMES,
    HALPE,
    NAMES,
    OPENPOSE,
    PICTURE,
    ROWS,
    SIZE,
    Write,
    alphapose,
    flat,
    folder_of,
    js,
    landmarks,
    mmpose,
    npz,
    raw,
    shares,
    table,
    text,
    with_confidence,
    with_places,
)

BODY = standing(FRAMES) / 1000  # 3D, metres, z up


def swaying(keypoints: np.ndarray) -> np.ndarray:
    """3D poses that turn, so that bones change their length in the picture."""
    turn = np.linspace(0, 3, len(keypoints))
    c, s = np.cos(turn), np.sin(turn)
    rotation = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], axis=-2)  # (F, 2, 2)
    ground = np.einsum("fab,fjb->fja", rotation, keypoints[..., :2])
    return np.stack([ground[..., 0], 1 - keypoints[..., 2], ground[..., 1]], axis=-1)


# MediaPipe's world landmarks: metres from about the middle of the hips, a depth, a visibility.
WORLD = np.insert(BLAZE, 2, np.sin(np.arange(33)) / 3, axis=-1)
WORLD[..., :2] = (WORLD[..., :2] - WORLD[:, 23:25, :2].mean(axis=1, keepdims=True)) / 250 + 0.005


def packed_files(name: str) -> Write:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, "[]")
    return raw(stream.getvalue(), "a.zip")


REFUSED: dict[str, tuple[Write, str]] = {
    "shares without a size": (js(alphapose(shares(CLIP))), "--size 1280x720"),
    "confidences of bytes": (js(alphapose(with_confidence(CLIP, lambda c: 255 * c))),
                             "is no confidence"),
    "logarithms": (js(alphapose(with_confidence(CLIP, np.log))), "is no confidence"),
    "no confidence above 0": (js(alphapose(with_confidence(CLIP, np.zeros_like))),
                              "every confidence is 0"),
    "two cameras": (js([p | {"image_id": f"cam{c}_{f:04d}.png"}
                        for c in (1, 2) for f, p in enumerate(alphapose(CLIP))]),
                    "cam1_0000.png and cam2_0000.png are both image 0"),
    "two videos": (js([p | {"image_id": f"{c}/{f:04d}.png"}
                       for c in "ab" for f, p in enumerate(alphapose(CLIP))]),
                   "a/0000.png and b/0000.png are both image 0"),
    "two folders of OpenPose in one": (folder_of("v{}.json", [{"people": []}] * 2),
                                       "nobody is in it"),
    "a frame twice": (js([{"frame_id": min(f, 30), "instances": [mmpose(one)]}
                          for f, one in enumerate(CLIP)]), "image 30 occurs twice"),
    "files of two videos": (folder_of("{}.json", [alphapose(CLIP), alphapose(CLIP + 1)]),
                            "image '0.jpg' is in 0.json and in 1.json"),
    "a row twice": (table(["frame", *COLUMNS], [*ROWS, ROWS[5]]), "lines 7 and 42 are both"),
    "a key twice": (text('{"1.jpg": [], "1.jpg": []}'), "'1.jpg' occurs twice"),
    "an image without a name": (js([*alphapose(CLIP), {"keypoints": flat(CLIP[0])}]),
                                "entry 40 does not say of which image"),
    "two numbers of keypoints": (js([*alphapose(CLIP), *alphapose(HALPE, "b{}.jpg")]),
                                 "26 keypoints a person in 'b0.jpg', 17"),
    "several people, no image": (js([{"keypoints": flat(one + np.array([250 * (n % 2), 0, 0]))}
                                     for n, one in enumerate(CLIP[:4])]), "of one image"),
    "two arrays": (npz(a=CLIP, b=CLIP), "several arrays"),
    "no frames": (npz(keypoints=CLIP[:0]), "empty"),
    "two videos of VideoPose3D": (npz(positions_2d={v: {"custom": [CLIP[..., :2]]}
                                                    for v in ("a.mp4", "b.mp4")}),
                                  "2 videos .a.mp4 custom, b.mp4 custom."),
    "unknown number": (js([{"image_id": f, "keypoints": [1.0, 2.0, 0.5] * 308}
                           for f in range(3)]), "308 keypoints a person"),
    "another order": (js([{"people": [{"pose_keypoints_2d": flat(one)}]} for one in BODY_25B]),
                      "hardly make a body as body25"),
    "another program's 17": (js(alphapose(CLIP[:, [11, 12, 14, 16, 11, 13, 15, 0, 5, 1, 3, 5, 7,
                                                   9, 6, 8, 10]])), "--layout"),
    "no number": (table(["frame", *COLUMNS], [[0, "abc", *ROWS[0][2:]]]), "line 2: 'abc'"),
    "rows of several lengths": (table(["frame", *COLUMNS], [ROWS[0][:9]]), "line 2 has 9 cells"),
    "columns that name nothing": (table(["time", "a", "b"], [[0, 1, 2]]), "time, a, b"),
    "a size of 0": (npz(keypoints=CLIP, size=(0, 9)), "0x9 is no image size"),
    "a size of words": (js({"keypoints": CLIP.tolist(), "size": "large"}), "not a number or a"),
    "percent of the picture": (js(alphapose(with_places(CLIP, lambda xy: xy / PICTURE * 100))),
                               "percent of it"),
    "MoveNet's y, x": (npz(output=shares(CLIP)[:, None, None][..., [1, 0, 2]]), "MoveNet"),
    "a text": (js("text"), "no array of plain numbers"),
    "complex numbers": (npz(keypoints=CLIP * 1j), "complex128 are not numbers"),
    "nowhere": (npz(keypoints=np.zeros((5, 17, 2)), layout="coco17"), "nobody is in it"),
    "everywhere -1": (npz(keypoints=np.full((5, 17, 2), -1.0), layout="coco17"), "nobody is in it"),
    "labels and more": (folder_of("{}.txt", ["0 0.5 0.5 0.1 0.1 " + "0.5 " * 51, "person"]),
                        "1.txt has no labels"),
    "labelme": (js({"version": "5", "shapes": [{"label": "nose", "points": [[1, 2]]}]}),
                "'version', 'shapes'"),
    "a C3D table": (text("PathFileType\t4\n60\t60\nFrame#\tTime\tHip\n", "a.trc"), "cells|column"),
    "HDF5": (raw(b"\x89HDF\r\n\x1a\n" + bytes(99), "a.h5"), "give the .csv"),
    "people in place of frames": (js({"a_1": {"keypoints": CLIP.tolist()},
                                      "a_2": {"keypoints": CLIP.tolist()}}), "one person over"),
    "JSON lines, cut off": (text("\n".join(json.dumps({"frame": f, "keypoints": flat(one)})
                                           for f, one in enumerate(CLIP))[:-99], "a.jsonl"),
                            "line 40 is no JSON"),
    "an archive": (packed_files("a.json"), "unpack it"),
    "XML": (text('<?xml version="1.0"?>\n<annotations>', "a.xml"), "XML and HTML are not read"),
    "a pointer": (text("version https://git-lfs.github.com/spec/v1\noid x", "a.npz"), "lfs pull"),
    "YAML": (text("%YAML:1.0\n---\na: [1, 2, 3]\n", "a.yml"), "name no keypoints' x and y .%YAML"),
    "boxes only": (js([{"image_id": f, "bbox": [1, 2, 3, 4], "score": 1} for f in range(3)]),
                   "there: 'image_id', 'bbox', 'score'"),
    "Label Studio": (js([{"id": 1, "data": {"img": "1.jpg"}, "annotations": [{"result": []}]}]),
                     "there: 'id', 'data', 'annotations'"),
    "CrowdPose": (js({"images": [{"id": 1}],
                      "annotations": [
                          {"image_id": 1, "category_id": 1, "keypoints": [9, 9, 2] * 14}],
                      "categories": [{"id": 1, "keypoints": [*NAMES[5:], "head", "neck"]}]}),
                  "14 keypoints of no known layout"),
    "a video": (raw(b"\0\0\0\x18ftypmp42" + bytes(99), "a.mp4"), "no file of keypoints"),
    "a damaged gzip": (raw(gzip.compress(b"[1, 2, 3]" * 99)[:-20], "a.json.gz"), "damaged"),
    "an empty folder": (folder_of("{}.json", []), "no .json file in this folder"),
    "3D: world landmarks only": (js([{"pose_world_landmarks": landmarks(one)} for one in BLAZE]),
                                 "in 3D"),
    "3D: world landmarks in an array": (npz(pose=WORLD), "hips are at 0, 0"),
    "3D: millimetres": (npz(keypoints=1000 * BODY), "is no confidence"),
    "3D: metres": (npz(keypoints=BODY, layout="h36m17"), "is no confidence"),
    "3D: above the floor": (npz(reconstruction=BODY - BODY.min((0, 1))), "poses in 3D"),
    "3D: in front of a camera": (npz(keypoints=1000 * swaying(BODY) + [0, 0, 4000],
                                     layout="h36m17"), "is no confidence"),
    "3D: bones that keep their length": (
        npz(keypoints=40 * swaying(BODY) + [300, 300, 40], layout="h36m17"), "keep their length"),
    "3D: with scores": (js([{"frame_id": f, "instances": [
        {"keypoints": one.tolist(), "keypoint_scores": [1.0] * 17}]}
        for f, one in enumerate(swaying(BODY))]), "in 3D"),
    "3D: named columns": (table([f"{n}_{c}" for n in NAMES for c in ("x", "y", "z", "score")], [
        flat(np.insert(one - [400, 250, 0], 2, 80.0, axis=-1)) for one in CLIP]),
        "neither pixels"),
    "2D from the hips": (npz(keypoints=with_places(CLIP, lambda xy: xy - (
        xy[:, 11:12] + xy[:, 12:13]) / 2), layout="coco17"), "hips are at 0, 0|neither pixels"),
}  # fmt: skip


WITHOUT_SIZE = ("shares without a size", "a size of 0")


@pytest.mark.parametrize("form", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence(tmp_path, form):
    write, told = REFUSED[form]
    size = None if form in WITHOUT_SIZE else SIZE
    with pytest.raises(UserError, match=told) as caught:
        read_keypoints(str(write(tmp_path)), size=size)
    assert "\n" not in str(caught.value)


# --- Whatever stands in a file ------------------------------------------------------------------

STRUCTURES = {
    "AlphaPose": alphapose(CLIP[:2]),
    "OpenPose": [{"people": [{"pose_keypoints_2d": flat(one)}]} for one in OPENPOSE[:2]],
    "mmpose": {"meta_info": {"dataset_name": "coco"},
               "instance_info": [{"frame_id": f, "instances": [mmpose(one)]}
                                 for f, one in enumerate(CLIP[:2])]},
    "COCO": {"images": [{"id": 1, "file_name": "1.jpg", "width": 864, "height": 480}],
             "annotations": [{"image_id": 1, "category_id": 1, "keypoints": flat(CLIP[0])}],
             "categories": [{"id": 1, "keypoints": list(NAMES)}]},
    "MediaPipe": {"fps": 25, "frames": [{"frame": 0, "pose_landmarks": landmarks(BLAZE[0])}]},
    "ours": {"layout": "coco17", "fps": 25, "size": SIZE, "keypoints": CLIP[:2].tolist()},
}  # fmt: skip
OTHER = [None, "x", 0, -1, 1e400, [], {}, [None], [[1, 2], [3]], {"a": 1}, [{}], 10**30, True]


def places_in(value: object, depth: int = 4):
    """(container, key) of every value, but of few among many alike."""
    if isinstance(value, dict | list) and depth:
        keys = list(value) if isinstance(value, dict) else range(min(len(value), 2))
        for key in keys:
            yield value, key
            yield from places_in(value[key], depth - 1)


@pytest.mark.parametrize("name", STRUCTURES)
def test_anything_in_place_of_anything_is_read_or_told_in_a_sentence(tmp_path, name):
    content = json.loads(json.dumps(STRUCTURES[name]))
    refused = 0
    for container, key in list(places_in(content)):
        before = container[key]
        for other in OTHER:
            container[key] = other
            try:
                read_keypoints(str(js(content)(tmp_path)), size=SIZE)
            except UserError as error:
                refused += 1
                assert "\n" not in str(error) and "a.json" in str(error)
        container[key] = before
    assert refused and len(read_keypoints(str(js(content)(tmp_path)), size=SIZE).frame)
