"""The detectors' common face, and what is said where one is missing."""

import hashlib
import re
import sys

import numpy as np
import pytest

from demo.detectors import DETECTORS, choose_detector
from demo.detectors.networks import WEIGHTS, open_network
from demo.detectors.rtmpose import RTMPose
from lib.errors import UserError
from lib.keypoints import COCO_17, HALPE_26


def test_an_unknown_detector_is_told_with_the_likely_one():
    with pytest.raises(UserError, match="did you mean 'blazepose'"):
        choose_detector("blaze-pose")
    assert DETECTORS[0] == "blazepose"


@pytest.mark.parametrize(
    ("name", "package", "remedy"),
    [("blazepose", "onnxruntime", "requirements-demo.txt"), ("rtmpose", "rtmlib", "pip install")],
)
def test_a_missing_package_is_told_with_the_remedy(monkeypatch, name, package, remedy):
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    with pytest.raises(UserError, match=remedy):
        choose_detector(name)


def test_damaged_weights_are_told(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("demo.detectors.networks.WEIGHTS", tmp_path)
    (tmp_path / "half.onnx").write_bytes(next(WEIGHTS.glob("*.onnx")).read_bytes()[:1000])
    for name in ("none.onnx", "half.onnx"):
        with pytest.raises(UserError, match=f"{name}: missing or damaged"):
            open_network(name)


def test_the_weights_are_those_that_are_described_and_small():
    listed = re.findall(r"`(\w+\.onnx)`.*`([0-9a-f]{64})`", (WEIGHTS / "README.md").read_text())
    files = sorted(WEIGHTS.glob("*.onnx"))
    assert sorted(listed) == [(f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]
    assert sum(file.stat().st_size for file in files) < 24e6


def test_rtmpose_leaves_out_people_it_does_not_believe_in():
    """rtmlib takes the whole frame for a person where it finds none: with low scores."""
    points = np.arange(2 * 26 * 2, dtype=float).reshape(2, 26, 2)
    scores = np.stack([np.full(26, 0.8), np.full(26, 0.1)])
    answers = iter([(points, scores), (points[:0], scores[:0])])
    first, second = RTMPose(lambda frame: next(answers), HALPE_26)([None, None])
    assert first.shape == (1, 26, 3) and second.shape == (0, 26, 3)
    np.testing.assert_allclose(first[0, :, :2], points[0])
    np.testing.assert_allclose(first[0, :, 2], 0.8)


def test_rtmpose_in_coco_keypoints():
    detector = RTMPose(lambda frame: (np.ones((1, 17, 2)), np.full((1, 17), 1.7)), COCO_17)
    (people,) = detector([None])
    assert people.shape == (1, 17, 3) and people[0, 0, 2] == 1  # a confidence is at most 1
