"""The same clip in every form that people may have it in is read as the same clip."""

import csv
import io
import json
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from demo.keypoint_files import read_keypoints
from lib.keypoints import BLAZEPOSE_33, COCO_17
from tests.keypoint_samples import (
    BLAZE,
    CLIP,
    COLUMNS,
    FRAMES,
    HALPE,
    NAMES,
    OPENPOSE,
    OPENPOSE_18,
    PICTURE,
    ROWS,
    SIZE,
    Write,
    alphapose,
    check,
    flat,
    folder_of,
    js,
    landmarks,
    mmpose,
    npz,
    packed,
    raw,
    shares,
    table,
    text,
    with_confidence,
    with_places,
)


def named(one: np.ndarray, order: np.ndarray) -> dict:
    return {NAMES[joint]: one[joint].tolist() for joint in order}


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def detectron() -> np.ndarray:
    found = np.empty((FRAMES, 2), dtype=object)
    for frame, one in enumerate(CLIP):
        x, y, c = one.T
        found[frame, 0], found[frame, 1] = [], np.stack([x, y, c - 3, c])[None]
    return found


def in_cells(header: list[str], rows: list[list[object]]) -> Write:
    """A table whose cells hold lists or dictionaries, as pandas writes them."""
    stream = io.StringIO()
    csv.writer(stream).writerows([header, *rows])
    return text(stream.getvalue(), "a.csv")


def objects(values: list[np.ndarray]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def deeplabcut(individuals: bool) -> str:
    header = [["scorer", *["net"] * 51], ["bodyparts", *[n for n in NAMES for _ in range(3)]]]
    if individuals:
        header.insert(1, ["individuals", *["one"] * 51])
    header.append(["coords", *["x", "y", "likelihood"] * 17])
    stream = io.StringIO()
    csv.writer(stream).writerows(header + ROWS)
    return stream.getvalue()


width_unit = with_places(CLIP, lambda xy: xy / PICTURE[0] * 2 - [1, PICTURE[1] / PICTURE[0]])
each_axis = with_places(CLIP, lambda xy: xy / PICTURE * 2 - 1)
order = np.random.default_rng(1).permutation(17)

# What is written, and a part of what is said.
AS_IT_IS: dict[str, tuple[Write, str]] = {
    # text
    "byte order mark": (js(alphapose(CLIP), "utf-8-sig"), ""),
    "UTF-16": (js(alphapose(CLIP), "utf-16"), ""),
    "UTF-16 without a mark": (js(alphapose(CLIP), "utf-16-le"), ""),
    "numbers as text": (
        js([p | {"keypoints": [str(k) for k in p["keypoints"]]} for p in alphapose(CLIP)]), ""),
    "gzip of arrays": (packed(npz(keypoints=CLIP)), "as coco17"),
    "JSON lines, called .json": (
        text("\n".join(json.dumps({"frame": f + 1, "predictions": [{"keypoints": flat(one)}]})
                       for f, one in enumerate(CLIP))), ""),
    "JSON in JSON": (js([json.dumps([{"keypoints": one.tolist()}]) for one in CLIP]), ""),
    "arrays of text": (npz(keypoints=CLIP.astype(str)), "as coco17"),
    "the size in a table": (js({"layout": "COCO", "keypoints": CLIP.tolist(),
                                "size": {"width": 864, "height": 480}}), ""),
    "words beside": (js({"resolution": "1080p", "image_size": "full", "layout": "coco17",
                         "keypoints": CLIP.tolist()}), ""),
    # places
    "shares": (js(alphapose(shares(CLIP))), "shares of the picture"),
    "-1 to 1, in the width's unit": (npz(keypoints=width_unit, layout="coco17"), "same unit"),
    "-1 to 1 on each axis": (npz(keypoints=each_axis, layout="coco17"), "from -1 to 1"),
    # confidences
    "confidences x2": (js(alphapose(with_confidence(CLIP, lambda c: 2 * c))),
                       "divided by 2"),
    "percent": (js(alphapose(with_confidence(CLIP, lambda c: 100 * c))), "percent"),
    # names of images
    "numbers from 1": (js(alphapose(CLIP, "frame_{}.jpg", 1)), ""),
    "numbers of a camera": (js(alphapose(CLIP, "DSC{}.jpg", 20350)), "20350 and is frame 0"),
    "another number before": (js(alphapose(CLIP, "v1080p_{:04d}.png")), ""),
    "another number behind": (js(alphapose(CLIP, "{:05d}_cam02_1080.jpg")), ""),
    "numbers in the folder": (js(alphapose(CLIP, "/home/a1/v2/{:06d}.jpg", 1)), ""),
    "Windows": (js(alphapose(CLIP, "C:\\v7\\{:03d}.png", 1)), ""),
    "the same number twice": (js(alphapose(CLIP, "{0}_{0}.jpg")), ""),
    "Roboflow's names": (js([p | {"image_id": f"v2-{f:04d}_png.rf.{hash((f, 1)) % 10**9:x}.jpg"}
                             for f, p in enumerate(alphapose(CLIP))]), "the first one that tells"),
    "letters": (js([p | {"image_id": f"{chr(97 + f // 26)}{chr(97 + f % 26)}.png"}
                    for f, p in enumerate(alphapose(CLIP))]), "natural order"),
    "seconds": (js([p | {"image_id": f"{f / 25:.2f}.jpg"}
                    for f, p in enumerate(alphapose(CLIP))]), "natural order"),
    "clock": (js([p | {"image_id": f"v_00-00-{f // 25:02d}.{f % 25 * 40:03d}.jpg"}
                  for f, p in enumerate(alphapose(CLIP))]), "natural order"),
    "milliseconds": (js([p | {"image_id": f"{int(f * 1000 / 30)}.jpg"}
                         for f, p in enumerate(alphapose(CLIP))]), "times in ms"),
    "nanoseconds": (js([p | {"image_id": f"{1403636579763555584 + f * 40000000}.png"}
                        for f, p in enumerate(alphapose(CLIP))]), "too far apart"),
    "any order": (js([alphapose(CLIP)[f] for f in np.random.default_rng(0).permutation(FRAMES)]),
                  ""),
    "people twice": (js(alphapose(CLIP) + alphapose(CLIP)[:20]), "20 people are there twice"),
    # arrays
    "frames, people": (npz(keypoints=CLIP[:, None]), "frames of one person"),
    "people, frames": (npz(keypoints=CLIP[None]), "as coco17"),
    "joints last": (npz(keypoints=CLIP.transpose(0, 2, 1)), "axis 2 is taken as the keypoints"),
    "joints first": (npz(keypoints=CLIP.swapaxes(0, 1)), "axis 0 is taken as the keypoints"),
    "ST-GCN's axes": (npz(data=CLIP.transpose(2, 0, 1)[None, ..., None]), "axis 2 is taken"),
    "a row a frame": (npz(keypoints=CLIP.reshape(FRAMES, -1)), "a row a frame"),
    "scores apart": (npz(kpts=CLIP[:, None, :, :2], scores=CLIP[:, None, :, 2]), "as coco17"),
    "scores apart, by frames": (npz(keypoints=objects([one[None, :, :2] for one in CLIP]),
                                    scores=objects([one[None, :, 2] for one in CLIP])),
                                "frames of one person"),
    "scores of another name": (npz(keypoints=CLIP[..., :2], certainty=CLIP[..., 2]),
                               "'certainty' is taken as the confidences"),
    "scores beside a number": (js([
        {"frame": f, "score": 0.9, "keypoints": one[:, :2].tolist(), "conf": one[:, 2].tolist()}
        for f, one in enumerate(CLIP)]), ""),
    "numbers of the keypoints": (npz(keypoints=np.insert(CLIP, 0, np.arange(17), axis=-1)),
                                 "as coco17"),
    "numbers of the keypoints in JSON": (js([
        {"frame": f, "keypoints": [[j, *k] for j, k in enumerate(one.tolist())]}
        for f, one in enumerate(CLIP)]), ""),
    "scores twice": (npz(keypoints=CLIP, scores=CLIP[..., 2]), "as coco17"),
    "scores with an axis": (npz(keypoints=CLIP[..., :2], conf=CLIP[..., 2:]), "as coco17"),
    "detectron2": (npz(boxes=detectron(), keypoints=detectron(), metadata={"w": 864, "h": 480}),
                   ""),
    "dictionaries in .npy": (
        raw(pickle.dumps([{"keypoints": one} for one in CLIP]), "a.npy"), "each is taken as"),
    "mmpose 0.x": (raw(pickle.dumps([[{"keypoints": one, "bbox": one[0]}] for one in CLIP]),
                       "a.pkl"), ""),
    "mmaction": (raw(pickle.dumps(OrderedDict(
        img_shape=SIZE[::-1], keypoint=CLIP[None, ..., :2], keypoint_score=CLIP[None, ..., 2])),
        "a.pkl"), "as coco17"),
    "arrays, one an image": (folder_of("{:03d}.npy", list(CLIP[:, None])), "as coco17"),
    # nested values
    "PoseFlow": (js({f"{f}.jpg": [{"keypoints": flat(one), "scores": 3.1, "idx": 1}]
                     for f, one in enumerate(CLIP)}), ""),
    "people with arrays": (raw(pickle.dumps({1: {
        "joints2d": CLIP, "frame_ids": np.arange(FRAMES), "bboxes": np.ones((FRAMES, 4))}}),
        "a.pkl"), "as coco17"),
    "one person with a list": (js({"person_1": {"keypoints": CLIP.tolist()}}),
                               "40 frames of one person, not 40 people"),
    "people with frames": (js({"1": {str(f): {"keypoints": flat(one), "scores": None}
                                     for f, one in enumerate(CLIP)}}), "a table of 1 people"),
    "TensorFlow.js": (js([[{"score": 0.9, "keypoints": [
        {"y": y, "x": x, "score": c, "name": NAMES[j]} for j, (x, y, c) in enumerate(one.tolist())
    ]}] for one in CLIP]), ""),
    "PoseNet": (js([[{"score": 0.9, "keypoints": [
        {"score": c, "part": camel(NAMES[j]), "position": {"x": x, "y": y}}
        for j, (x, y, c) in enumerate(one.tolist())
    ]}] for one in CLIP]), ""),
    "keypoints by name": (js({"frames": [{"frame": f, "keypoints": named(one, order)}
                                         for f, one in enumerate(CLIP)]}), ""),
    "keypoints by name in a frame": (js([{"frame": f, **named(one, order)}
                                         for f, one in enumerate(CLIP)]), ""),
    "frames and people in tables": (js({"width": 864, "height": 480, "frames": {
        str(f): {"persons": [{"id": 1, "keypoints": flat(one)}]} for f, one in enumerate(CLIP)}}),
        ""),
    "keypoints by number in a list": (js([
        {"frameNumber": f, "keypoints": [
            {"id": int(j), "x": one[j, 0], "y": one[j, 1], "score": one[j, 2]} for j in order]}
        for f, one in enumerate(CLIP)]), ""),
    "a picture's shape with channels": (js({"image_shape": [480, 864, 3], "frames": [
        {"frame": f, "keypoints": flat(one)} for f, one in enumerate(shares(CLIP))]}),
        "shares of the picture"),
    "people called keypoints": (js([
        {"frame_idx": f, "keypoints": [
            {"keypoints": [one[:, :2].tolist()], "scores": [one[:, 2].tolist()]}]}
        for f, one in enumerate(CLIP)]), ""),
    "people by number in a frame": (js({str(f): {"1": one.tolist()} for f, one in enumerate(CLIP)}),
                                    "as coco17"),
    "names of a category": (js({
        "images": [{"id": f, "file_name": f"{f}.jpg"} for f in range(FRAMES)],
        "annotations": [{"image_id": f, "category_id": 1, "keypoints": flat(one)}
                        for f, one in enumerate(CLIP[:, order])],
        "categories": [{"id": 1, "keypoints": [NAMES[joint] for joint in order]}]}), ""),
    "Sapiens": (folder_of("{:04d}.json", [
        {"meta_info": {"keypoint_id2name": dict(enumerate(NAMES))}, "instance_info": [mmpose(one)]}
        for one in CLIP]), ""),
    "OpenPifPaf": (folder_of("{:04d}.png.predictions.json", [
        [{"keypoints": flat(one), "bbox": [0, 0, 1, 1], "score": 0.9}] for one in CLIP]), ""),
    "ultralytics": (folder_of("{:04d}.json", [
        [{"name": "person", "class": 0, "keypoints": dict(
            zip(("x", "y", "visible"), one.T.tolist(), strict=True))}] for one in shares(CLIP)
    ]), "shares of the picture"),
    "YOLO's labels": (folder_of("v_{}.txt", [
        " ".join(map(str, [0, 0.5, 0.5, 0.2, 0.5, *flat(one), 7])) for one in shares(CLIP)]),
        "shares of the picture"),
    "endings in capitals": (folder_of("{:03d}.JSON", [
        {"people": [{"keypoints": flat(one)}]} for one in CLIP]), ""),
    "ultralytics' arrays": (js([{"keypoints": {"data": [one.tolist()], "xy": 0}} for one in CLIP]),
                            "each is taken as"),
    "supervision": (js([{"frame": f, "keypoints": {
        "xy": [one[:, :2].tolist()], "confidence": [one[:, 2].tolist()], "class_id": [0]}}
        for f, one in enumerate(CLIP)]), ""),
    "Detectron2 in JSON": (js([{"frame": f, "instances": {
        "pred_boxes": [[1, 2, 3, 4]], "scores": [0.9], "pred_keypoints": [one.tolist()]}}
        for f, one in enumerate(CLIP)]), ""),
    "easy_ViTPose": (js({"keypoints": [{"0": one[:, [1, 0, 2]].tolist()} for one in CLIP],
                         "skeleton": dict(enumerate(NAMES))}), ""),
    "pandas's records": (js([{"frame": r[0], **dict(zip(COLUMNS, r[1:], strict=True))}
                             for r in ROWS]), ""),
    "pandas's records of keypoints": (js([
        {"frame": f, "keypoint": NAMES[j], "x": x, "y": y, "score": c}
        for f, one in enumerate(CLIP) for j, (x, y, c) in enumerate(one.tolist())]), ""),
    # tables
    "ultralytics' table": (in_cells(["frame", "name", "box", "keypoints"], [
        [f, "person", {"x1": 1.0}, dict(zip(("x", "y", "visible"), one.T.tolist(), strict=True))]
        for f, one in enumerate(CLIP)]), ""),
    "places in cells": (in_cells(["frame", *NAMES], [
        [f, *map(tuple, one.tolist())] for f, one in enumerate(CLIP)]), ""),
    "decimal commas": (table(["frame", *COLUMNS],
                             [[str(n).replace(".", ",") for n in r] for r in ROWS], ";"), ""),
    "Excel's first line": (table(["sep=;\nframe", *COLUMNS], ROWS, ";"), ""),
    "a box beside": (table(["frame", "bbox_x", "bbox_y", *COLUMNS],
                           [[r[0], 1, 2, *r[1:]] for r in ROWS]), ""),
    "brackets": (table(["frame", *[f"{n.replace('_', ' ')} ({c})" for n in NAMES
                                   for c in ("x", "y", "confidence")]], ROWS), ""),
    "no header, a person": (table([], [[r[0], 0, *r[1:]] for r in ROWS]), "a row a frame"),
    "named columns": (table(["frame", *COLUMNS], ROWS), ""),
    "comment, end of line": (
        table(["# 25 fps\nframe", *COLUMNS], [[*row, ""] for row in ROWS]), ""),
    "pandas": (table(["", *COLUMNS], ROWS), ""),
    "pandas with two headers": (table(
        ["", *[n for n in NAMES for _ in range(3)]],
        [["", *["x", "y", "conf"] * 17], ["frame", *[""] * 51], *ROWS]), ""),
    "semicolons": (table(["Frame", *COLUMNS], ROWS, ";", "utf-16"), ""),
    "tabs, capitals": (table(["FRAME", *[c.upper() for c in COLUMNS]], ROWS, "\t", "utf-8-sig"),
                       ""),
    "other order": (table(["frame", *COLUMNS[3:], *COLUMNS[:3]],
                          [[r[0], *r[4:], *r[1:4]] for r in ROWS]), ""),
    "numbered columns": (table([f"{c}{j + 1}" for j in range(17) for c in "xyv"],
                               [r[1:] for r in ROWS]), "no column names the frames"),
    "no header": (table([], ROWS), "a row a frame"),
    "spaces": (table([], [r[1:] for r in ROWS], " "), "a row a frame"),
    "SLEAP": (table(["track", "frame_idx", "instance.score",
                     *[f"{n}.{c}" for n in NAMES for c in ("x", "y", "score")]],
                    [["", r[0], 0.9, *r[1:]] for r in ROWS]), ""),
    "a row a keypoint": (table(["frame", "landmark", "x", "y", "visibility"], [
        [f, NAMES[j], *one[j]] for f, one in enumerate(CLIP) for j in order]), ""),
    "DeepLabCut": (text(deeplabcut(individuals=False), "a.csv"), ""),
    "DeepLabCut, several": (text(deeplabcut(individuals=True), "a.csv"), ""),
}  # fmt: skip

OF_OTHER_LAYOUTS: dict[str, tuple[Write, np.ndarray, str]] = {
    "OpenPose -1 to 1": (js([{"people": [{"pose_keypoints_2d": flat(
        with_places(one, lambda xy: xy / PICTURE * 2 - 1))}]} for one in OPENPOSE]), OPENPOSE,
        "from -1 to 1"),
    "ComfyUI": (js([{"people": [{"pose_keypoints_2d": one.tolist(), "face_keypoints_2d": None}],
                     "canvas_width": 864, "canvas_height": 480} for one in OPENPOSE_18]),
                OPENPOSE_18, ""),
    "Kinetics": (js({"label": "x", "data": [
        {"frame_index": f + 1, "skeleton": [{"pose": flat(one[:, :2]), "score": flat(one[:, 2])}]}
        for f, one in enumerate(shares(OPENPOSE_18))]}), OPENPOSE_18, "shares of the picture"),
    "Halpe-136": (js([one | {"keypoints": [*one["keypoints"], *np.arange(330.0)]}
                      for one in alphapose(HALPE)]), HALPE, ""),
    "MediaPipe in JavaScript": (js([{"poseLandmarks": landmarks(one)} for one in BLAZE]), BLAZE,
                                "shares of the picture"),
    "MediaPipe's tasks": (js([{"landmarks": [landmarks(one)], "worldLandmarks": [[]]}
                              for one in BLAZE]), BLAZE, "shares of the picture"),
    "MediaPipe's messages": (js([{"frame": f, "pose_landmarks": {"landmark": landmarks(one)}}
                                 for f, one in enumerate(BLAZE)]), BLAZE, "shares of the picture"),
    "MediaPipe's message alone": (js([{"landmark": landmarks(one)} for one in BLAZE]), BLAZE,
                                  "shares of the picture"),
    "MediaPipe's enumeration": (table(
        [f"PoseLandmark.{n.upper()}_{c}" for n in BLAZEPOSE_33.names for c in ("x", "y", "v")],
        shares(BLAZE).reshape(FRAMES, -1)), BLAZE, "shares of the picture"),
    "MediaPipe's x, y, z": (npz(keypoints=np.concatenate(
        [shares(BLAZE)[..., :2], -np.ones((FRAMES, 1, 1)) * np.linspace(-1, 1, 33)[:, None] / 4], -1
        )), with_confidence(BLAZE, np.ones_like), "taken as MediaPipe's depth"),
    "MediaPipe's holistic model": (table(["frame", "type", "landmark_index", "x", "y", "z"], [
        [f, part, j, *one[j, :2], -0.1] for f, one in enumerate(shares(BLAZE))
        for part, count in (("face", 7), ("pose", 33), ("left_hand", 21)) for j in range(count)]),
        with_confidence(BLAZE, np.ones_like), "no confidences"),
    "MediaPipe without visibility": (js([{"landmarks": landmarks(one, confidence=False)}
                                         for one in BLAZE]), with_confidence(BLAZE, np.ones_like),
                                     "no confidences"),
}  # fmt: skip


@pytest.mark.parametrize("form", AS_IT_IS)
def test_every_form_is_read_as_the_same_clip(tmp_path, form):
    write, said = AS_IT_IS[form]
    people = read_keypoints(str(write(tmp_path)), size=SIZE)
    assert people.layout is COCO_17 and people.num_frames == FRAMES
    check(people, CLIP, range(FRAMES))
    assert said in "; ".join(people.assumed)
    assert said or not people.assumed


@pytest.mark.parametrize("form", OF_OTHER_LAYOUTS)
def test_forms_of_other_layouts(tmp_path, form):
    write, expected, said = OF_OTHER_LAYOUTS[form]
    people = read_keypoints(str(write(tmp_path)), size=SIZE)
    check(people, expected, range(FRAMES))
    assert said in "; ".join(people.assumed)


def test_scores_apart_where_a_frame_shows_nobody(tmp_path):
    keypoints = [one[None, :, :2] for one in CLIP]
    scores = [one[None, :, 2] for one in CLIP]
    keypoints[7], scores[7] = keypoints[7][:0], scores[7][:0]
    people = read_keypoints(
        str(npz(keypoints=objects(keypoints), scores=objects(scores))(tmp_path))
    )
    frames = [frame for frame in range(FRAMES) if frame != 7]
    check(people, CLIP[frames], frames)
    np.testing.assert_allclose(people.keypoints[..., 2], CLIP[frames][..., 2], atol=1e-6)


def test_beside_labels_of_yolo_may_lie_the_names_of_their_classes(tmp_path):
    labels = [f"0 0.5 0.5 0.2 0.5 {' '.join(map(str, flat(one)))}" for one in shares(CLIP)]
    folder_of("{}.txt", labels)(tmp_path)
    text("person\n", "classes.txt")(tmp_path)
    check(read_keypoints(str(tmp_path), size=SIZE), CLIP, range(FRAMES))


def test_whole_bodies_lose_face_and_hands_but_not_the_feet(tmp_path):
    feet = CLIP[:, [15, 15, 15, 16, 16, 16]] + [3, 9, 0]
    rest = np.full((FRAMES, 110, 3), 77.0)
    path = js([mmpose(one) for one in np.concatenate([CLIP, feet, rest], axis=1)])(tmp_path)
    people = read_keypoints(str(path))
    assert people.layout.name == "wholebody133"
    check(people, np.concatenate([CLIP, feet], axis=1), range(FRAMES))
