"""The forms of input and output: which coordinates the networks see and answer in."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from data.clips import ClipDataset
from lib.batch import Batch
from lib.checkpoint import BEST, LATEST, load_checkpoint, save_checkpoint
from lib.config import ConfigError, make_config
from lib.evaluation.predict import predict_batch
from lib.geometry import expected_polar, flip_pose, person_scaled, person_unit
from lib.skeleton import H36M, MPI_INF_3DHP
from lib.training.stages import LiftingStage
from model.bone_aware import BoneAwareModule
from model.build import build_bone_aware, build_lifter, build_mdtf, load_bone_aware, load_mdtf
from model.lifter import Lifter
from model.mdtf import MDTF
from tests.mistakes import told
from tests.models import clips, unsettle
from tests.samples import CONFIG, released_checkpoint, released_pair
from tests.training import read_run, run_train, stage2_flags

BOTH = pytest.mark.parametrize("skeleton", [H36M, MPI_INF_3DHP], ids=["h36m", "3dhp"])


def whole(input_form="person", stage1_form="person", skeleton=H36M, **forms):
    bone_aware = BoneAwareModule(16, 2, input_form=stage1_form, root=skeleton.root)
    lifter = Lifter(skeleton, 9, 16, 2)
    return unsettle(MDTF(bone_aware, lifter, skeleton, input_form=input_form, **forms)).eval()


def zoomed(pose, factor, skeleton=H36M):
    """Each frame's person `factor` as large, with the root where it was; confidence as it was."""
    root = pose[..., skeleton.root, None, :2]
    xy = root + factor * (pose[..., :2] - root)
    return torch.cat((xy, pose[..., 2:]), -1)


class Told(nn.Module):
    """In place of a lifter: answers with a pose, and keeps what it was shown."""

    bone_branch, n_frames = None, 9

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, pose_2d, features=None):
        self.seen = pose_2d
        return self.answer


@BOTH
def test_person_scaled_input_against_a_loop(skeleton, rng):
    pose = rng.standard_normal((2, 4, 17, 3))
    found = person_scaled(torch.from_numpy(pose), skeleton.root)
    unit = person_unit(torch.from_numpy(pose), skeleton.root)
    assert unit.shape == (2, 1, 1, 1)
    for clip in range(2):
        numbers = [
            pose[clip, frame, joint, axis] - pose[clip, frame, skeleton.root, axis]
            for frame, joint, axis in np.ndindex(4, 17, 2)
        ]
        size = math.sqrt(sum(n * n for n in numbers) / len(numbers)) / 0.3
        assert unit[clip].item() == pytest.approx(size)
        expected = np.array(numbers).reshape(4, 17, 2) / size
        expected[:, skeleton.root] = pose[clip, :, skeleton.root, :2]  # on the screen
        np.testing.assert_allclose(found[clip, ..., :2], expected, rtol=1e-12)
    assert torch.equal(found[..., 2], torch.from_numpy(pose[..., 2]))


@BOTH
@pytest.mark.parametrize("root_rel", [True, False])
@pytest.mark.parametrize("output_form", ["absolute", "residual"])
@pytest.mark.parametrize("input_form", ["screen", "person"])
def test_what_the_lifter_answers_becomes_a_pose(skeleton, input_form, output_form, root_rel):
    """pose = unit · answer (unit 1 on the screen) + what is known of x and y."""
    pose, answer, root = clips(2, 9), torch.randn(2, 9, 17, 3), skeleton.root
    lifter = Told(answer)
    forms = {"input_form": input_form, "output_form": output_form, "root_rel": root_rel}
    found = MDTF(None, lifter, skeleton, **forms)(pose)
    expected = answer.clone()
    if input_form == "person":
        assert torch.equal(lifter.seen, person_scaled(pose, root))
        expected *= person_unit(pose, root)
    else:
        assert torch.equal(lifter.seen, pose)
    place = pose[:, :, root, None, :2]
    if output_form == "residual":
        expected[..., :2] += pose[..., :2] - place
    if not root_rel and (input_form, output_form) != ("screen", "absolute"):
        expected[..., :2] += place  # only a published answer has the place in it
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@BOTH
@pytest.mark.parametrize("output_form", ["absolute", "residual"])
def test_a_person_twice_as_large_has_the_pose_twice_as_large(skeleton, output_form):
    model, pose = whole(skeleton=skeleton, output_form=output_form), clips()
    with torch.no_grad():
        once, twice = model(pose), model(zoomed(pose, 2, skeleton))
        assert not torch.allclose(whole("screen", "screen")(pose), once, atol=1e-2)
    torch.testing.assert_close(twice, 2 * once, rtol=1e-4, atol=1e-4)


def test_only_the_roots_slot_tells_where_a_person_stands():
    """Moved and scaled as a whole, all other slots and the bones' features stay."""
    model, pose = whole(), clips()
    moved = pose * torch.tensor([0.4, 0.4, 1.0]) + torch.tensor([0.7, -0.2, 0.0])
    one, two = (person_scaled(p, 0) for p in (pose, moved))
    torch.testing.assert_close(one[:, :, 1:], two[:, :, 1:], rtol=1e-4, atol=1e-5)
    assert torch.equal(two[:, :, 0], moved[:, :, 0])
    model.bone_aware.forward = lambda _: torch.zeros(2, 9, 17, 6)  # it sees the root's slot, too
    features = [model.bone_features(p) for p in (pose, moved)]
    torch.testing.assert_close(*features, rtol=1e-4, atol=1e-5)
    lengths = torch.linalg.vector_norm(one[:, :, 5, :2] - one[:, :, 4, :2], dim=-1)
    sine = math.sin(math.pi / 12)  # of the first bin
    torch.testing.assert_close(features[0][:, :, 4, 2], lengths / sine, rtol=1e-4, atol=1e-5)


@BOTH
@pytest.mark.parametrize("forms", [("person", "person"), ("screen", "person")])
def test_the_mirror_image_has_the_same_unit_and_the_mirrored_pose(skeleton, forms):
    model, pose = whole(*forms, skeleton=skeleton, output_form="residual"), clips()
    mirrored = flip_pose(pose, skeleton)
    units = [person_unit(p, skeleton.root) for p in (pose, mirrored)]
    torch.testing.assert_close(*units, rtol=1e-6, atol=0)
    with torch.no_grad():
        there, back = (predict_batch(model, p, skeleton, flip=True) for p in (pose, mirrored))
    torch.testing.assert_close(flip_pose(back, skeleton), there, rtol=1e-4, atol=1e-4)


def test_a_person_in_one_point_is_finite():
    pose = torch.full((2, 9, 17, 3), 0.4).requires_grad_()
    assert person_unit(pose, 0).tolist() == [[[[1.0]]]] * 2
    model = whole(output_form="residual")
    output = model(pose)
    output.sum().backward()
    assert output.isfinite().all() and pose.grad.isfinite().all()


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_spoilt_frame_spoils_no_other_frames_unit(value):
    pose = clips()
    whole_clip = person_unit(pose[:, [0, 1, 2, 3, 5, 6, 7, 8]], 0)
    for joint in (0, 7):  # the root spoils all joints of its frame
        spoilt = pose.clone()
        spoilt[:, 4, joint, 1] = value
        torch.testing.assert_close(person_unit(spoilt, 0), whole_clip)
        scaled = person_scaled(spoilt, 0)
        is_lost = ~(scaled[..., 1].abs() < 1e9)
        assert is_lost[:, 4, joint].all()
        assert not is_lost[:, [0, 1, 2, 3, 5, 6, 7, 8]].any()


def test_a_clip_of_nan_is_nan():
    pose = clips()
    pose[0] = math.nan
    with torch.no_grad():
        found = whole(output_form="residual")(pose)
    assert found[0].isnan().all() and found[1].isfinite().all()


# --- Bone features ------------------------------------------------------------------------------


def test_an_expected_angle_by_hand():
    """Bins at 15°, 45° … 165°: half of the first and half of the third is 45°; all alike 90°."""
    half = torch.tensor([0.5, 0, 0.5, 0, 0, 0])
    assert expected_polar(half).item() == pytest.approx(45 / 180)
    assert expected_polar(torch.full((2, 6), 1 / 6)).tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("bins", [4, 9])
@pytest.mark.parametrize("angle", ["argmax", "expectation"])
def test_the_middle_of_a_bin_is_an_odd_multiple_of_half_its_width(bins, angle):
    """Of 4 bins, 22.5°, 67.5° …; of 9, 10°, 30° …: (2 b + 1) / (2 · bins) of 180°."""
    bone_aware = BoneAwareModule(16, 2, num_bins=bins)
    model = MDTF(bone_aware, Lifter(H36M, 9, 16, 2), H36M, "child", bone_angle=angle).eval()
    assert bone_aware(clips()).shape == (2, 9, 17, bins)
    for number in range(bins):
        logits = torch.full((2, 9, 17, bins), -100.0)
        logits[..., number] = 0
        model.bone_aware.forward = lambda _, logits=logits: logits
        found = model.bone_features(clips())[:, :, 1:, 1]
        degrees = (22.5 + 45 * number) if bins == 4 else 10 + 20 * number
        torch.testing.assert_close(found, torch.full_like(found, degrees / 180))


@BOTH
@pytest.mark.parametrize("slots", ["released", "child"])
@pytest.mark.parametrize("angle", ["argmax", "expectation"])
def test_bone_features_of_a_stage_1_against_a_loop(skeleton, slots, angle):
    """With the confidence as the fourth: softmax, angle and length by hand."""
    lifter, pose = Lifter(skeleton, 2, 16, 1, bone_features=4), clips(1, 2)
    bone_aware = BoneAwareModule(16, 1)
    logits = torch.randn(1, 2, 17, 6)
    bone_aware.forward = lambda _: logits
    forms = {"bone_angle": angle, "bone_confidence": True}
    model = MDTF(bone_aware, lifter, skeleton, slots, **forms).eval()
    features = model.bone_features(pose)
    expected = np.zeros((1, 2, 17, 4))
    for frame in range(2):
        for number, (parent, child) in enumerate(skeleton.bones):
            odds = np.exp(logits[0, frame, child].double().numpy())
            odds /= odds.sum()
            degrees = 15 + 30 * (odds.argmax() if angle == "argmax" else odds @ np.arange(6))
            dx, dy = (pose[0, frame, child, :2] - pose[0, frame, parent, :2]).tolist()
            length = math.hypot(dx, dy) / math.sin(math.radians(degrees))
            values = math.atan2(dy, dx) / math.pi, degrees / 180, length, odds.max()
            expected[0, frame, number if slots == "released" else child] = values
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    assert model(pose).shape == (1, 2, 17, 3)


@pytest.mark.parametrize("angle", ["argmax", "expectation"])
def test_a_frame_that_stage_1_cannot_judge_has_no_features(angle):
    model = whole(bone_angle=angle)
    logits = torch.zeros(1, 9, 17, 6)
    logits[0, 2, 5, 1], logits[0, 3, 5, 1] = math.nan, math.inf
    model.bone_aware.forward = lambda _: logits
    is_lost = model.bone_features(clips(1)).isnan().flatten(2)
    assert is_lost.all(-1)[0, [2, 3]].all() and not is_lost[0, [0, 1, 4, 5, 6, 7, 8]].any()


# --- The unit of the losses ---------------------------------------------------------------------


def test_losses_in_the_persons_unit_do_not_change_with_the_persons_size():
    values = {**CONFIG, "lambda_lv": 1, "lambda_lg": 1, "lambda_a": 1, "lambda_av": 1}
    by_unit = {}
    for unit in ("screen", "person"):
        config = make_config({**values, "loss_unit": unit}, "a.yaml")
        model = whole(output_form="residual")
        stage = LiftingStage(model, config, H36M, [], "cpu")
        pose_2d, pose_3d = clips(), clips()
        batches = [
            Batch(zoomed(pose_2d, factor), factor * pose_3d, [0, 1]) for factor in (1.0, 0.25)
        ]
        by_unit[unit] = [stage.losses(batch) for batch in batches]
    large, small = by_unit["person"]
    for name, value in large.items():
        torch.testing.assert_close(small[name], value, rtol=1e-3, atol=1e-4)
    large, small = by_unit["screen"]
    assert small["mpjpe"].item() == pytest.approx(large["mpjpe"].item() / 4, rel=1e-3)


def test_a_loss_in_the_persons_unit_by_hand():
    """An error of (0.2, 0.1) per frame on people whose unit is 0.5 and 2: 0.4 and 0.05, mean."""
    pose_2d = torch.zeros(2, 9, 17, 3)
    numbers = 34
    for clip, unit in enumerate((0.5, 2.0)):  # one number other than 0: rms · sqrt(34)
        pose_2d[clip, :, 3, 1] = 0.3 * unit * math.sqrt(numbers)
    label = torch.randn(2, 9, 17, 3)
    label -= label[:, :, :1].clone()
    error = torch.tensor([0.2, 0.1])[:, None, None, None] * torch.tensor([1.0, 0.0, 0.0])
    config = make_config({**CONFIG, "loss_unit": "person"}, "a.yaml")
    stage = LiftingStage(Told(label + error), config, H36M, [], "cpu")
    found = stage.losses(Batch(pose_2d, label, [0, 1]))
    assert found["mpjpe"].item() == pytest.approx((0.4 + 0.05) / 2, rel=1e-5)


# --- Checkpoints --------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [("screen", "person"), ("person", "screen")])
def test_each_stage_keeps_its_own_form(data, tmp_path, first, second):
    """Trained, evaluated from its checkpoint, resumed and lifted by the demo's door: the same."""
    stage1 = {**CONFIG, "channel": 8, "d_state": 4, "stage": 1, "input": first}
    config = make_config(stage1, "a.yaml")
    weights = unsettle(build_bone_aware(config)).state_dict()
    path = tmp_path / "first" / BEST
    path.parent.mkdir()
    save_checkpoint(path, {"model": weights, "config": config.as_dict(), "stage": 1})
    flags = stage2_flags(data, tmp_path / "run")
    flags[flags.index("--stage1-checkpoint") + 1] = str(path)
    keys = [f"input={second}", "output=residual", "loss_unit=person", "bone_angle=expectation"]
    keys = [flag for key in (*keys, "bone_confidence=true") for flag in ("--set", key)]
    keys += ["--set", "epochs=1"]
    status, _, errors = run_train(*flags, *keys)
    assert status == 0, errors
    path.unlink()
    model = load_mdtf(tmp_path / "run" / BEST)
    assert (model.bone_aware.input_form, model.input_form) == (first, second)
    report = tmp_path / "report.json"
    run_train("--eval-only", "--checkpoint", tmp_path / "run", "--report", report)
    (line,) = read_run(tmp_path / "run")[1]
    assert f'"mpjpe": {line["test/mpjpe"]}' in report.read_text()
    resume = ["--config", data / "stage2.yaml", "--resume", "--checkpoint", tmp_path / "run"]
    status, _, errors = run_train(*resume, *keys[:-1], "epochs=2")
    assert status == 0, errors
    assert load_checkpoint(tmp_path / "run" / LATEST).bone_aware_forms["input"] == first


def test_a_stage_1_that_does_not_say_its_form_has_the_published_one(tmp_path):
    config = make_config({**CONFIG, "input": "person"}, "a.yaml")
    weights = BoneAwareModule(16, 2).state_dict()
    save_checkpoint(tmp_path / "bare", {"model": weights})
    assert load_bone_aware(tmp_path / "bare", config).input_form == "screen"
    contents = {"model": build_lifter(config).state_dict(), "bone_aware": weights}
    save_checkpoint(tmp_path / BEST, contents)
    checkpoint = load_checkpoint(tmp_path / BEST)
    assert build_mdtf(config, checkpoint, None).bone_aware.input_form == "screen"


@pytest.mark.parametrize("key", ["input=person", "output=residual", "bone_angle=expectation"])
def test_a_released_checkpoint_in_another_form_is_refused(tmp_path, key):
    """Its file holds no config that could disagree, and the shapes are the same."""
    first, second = released_pair()
    paths = (released_checkpoint(tmp_path / f"{n}" / BEST, w) for n, w in ((1, first), (2, second)))
    path_1, path_2 = paths
    name, value = key.split("=")
    config = make_config({**CONFIG, name: value}, "a.yaml")
    assert f"a released checkpoint, whose {name} is " in told(load_mdtf, path_2, config, path_1)
    assert load_mdtf(path_2, make_config(CONFIG, "a.yaml"), path_1).input_form == "screen"


def test_as_many_bins_in_both_stages(tmp_path):
    first = make_config({**CONFIG, "stage": 1, "bins": 4}, "a.yaml")
    weights = build_bone_aware(first).state_dict()
    save_checkpoint(tmp_path / "first", {"model": weights, "config": first.as_dict()})
    config = make_config({**CONFIG, "bins": 4}, "a.yaml")
    model = build_mdtf(config, None, tmp_path / "first")
    assert model.bone_aware.num_bins == 4
    assert model.eval()(clips()).shape == (2, 9, 17, 3)
    other = make_config({**CONFIG, "bins": 9}, "a.yaml")
    found = told(build_mdtf, other, None, tmp_path / "first")
    assert "its stage 1 tells 4 bins, the config has bins 9" in found
    with pytest.raises(ConfigError, match="5 is not one of 4, 6, 9"):
        make_config({**CONFIG, "bins": 5}, "a.yaml")


@pytest.mark.parametrize("bins", [4, 9])
def test_a_stage_1_of_other_bins_trains_and_is_scored(data, tmp_path, bins):
    flags = ("--config", data / "stage1.yaml", "--set", f"bins={bins}", "--set", "epochs=1")
    status, _, errors = run_train(*flags, "--new-checkpoint", tmp_path / "run")
    assert status == 0, errors
    report = tmp_path / "report.json"
    flags = ("--eval-only", "--checkpoint", tmp_path / "run", "--report", report)
    status, out, errors = run_train(*flags)
    assert status == 0, errors
    counts = np.array(json.loads(report.read_text())["confusion"])
    assert counts.shape == (bins, bins)
    assert f"0-{180 // bins}°" in out
    # Each bone of the test clips is in the bin that holds its angle.
    test = ClipDataset(data / "H36M-9", "test", 9)
    pose = test.__getitems__(range(len(test))).pose_3d.double()
    bones = pose[..., H36M.bone_children, :] - pose[..., H36M.bone_parents, :]
    cosine = (bones[..., 2] / torch.linalg.vector_norm(bones, dim=-1)).numpy()
    edges = np.cos(np.linspace(math.pi, 0, bins + 1))
    expected = np.histogram(cosine, edges)[0][::-1]
    assert np.abs(counts.sum(1) - expected).max() <= 2  # angles on an edge, to rounding


def test_damaged_forms_are_told(tmp_path):
    config = make_config(CONFIG, "a.yaml")
    contents = {"model": build_lifter(config).state_dict(), "config": config.as_dict()}
    contents["bone_aware"] = BoneAwareModule(16, 2).state_dict()
    for forms, part in ((3, "damaged"), ({"input": "polar"}, "stage 1 has input 'polar'")):
        save_checkpoint(tmp_path / BEST, {**contents, "bone_aware_forms": forms})
        assert part in told(load_mdtf, tmp_path / BEST)
