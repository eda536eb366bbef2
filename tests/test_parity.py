"""Published weights, here random ones under their names, give the published formulas' results."""

import functools

import numpy as np
import pytest
import torch

from lib.checkpoint import load_weights
from lib.errors import UserError
from lib.evaluation.predict import predict
from lib.geometry import bone_features, flip_pose
from lib.released import released_names, translate_released
from lib.skeleton import H36M
from model.bone_aware import BoneAwareModule
from model.lifter import Lifter
from model.mdtf import MDTF
from model.ops import backend_names, resolve_backend
from tests import reference


def is_available(backend):
    try:
        resolve_backend(backend, torch.device("cpu"), torch.float32)
    except UserError:
        return False
    return True


BACKENDS_HERE = [name for name in backend_names() if name != "auto" and is_available(name)]


@pytest.fixture
def backend(request, monkeypatch):
    monkeypatch.setattr("model.ops.backend._default", request.param)
    return request.param


EVERY_BACKEND = pytest.mark.parametrize("backend", BACKENDS_HERE, indirect=True)


def build(bone_aware_state, lifter_state, slots="released"):
    """Our modules with published weights, their sizes read off the weights."""
    channel = bone_aware_state["Spatial_patch_to_embedding.weight"].shape[0]
    depth = sum(name.startswith("mlp.") for name in bone_aware_state) // 2
    bone_aware = BoneAwareModule(channel, depth)
    load_weights(bone_aware, translate_released(bone_aware_state), "bone_aware")
    frames, channel = lifter_state["Temporal_pos_embed"].shape[1:]
    depth = len({name.split(".")[1] for name in lifter_state if name.startswith("STEblocks.")})
    lifter = Lifter(H36M, frames, channel, depth)
    load_weights(lifter, translate_released(lifter_state), "lifter")
    return MDTF(bone_aware, lifter, H36M, slots).eval()


@functools.cache
def random_pair(channel, depth, frames):
    return (
        reference.random_weights(reference.bone_aware_shapes(channel, depth), seed=1),
        reference.random_weights(reference.lifter_shapes(channel, depth, frames), seed=2),
    )


def random_clips(batch, frames, seed=5):
    """Clips with confidence and a bone of length 0 in the first frame.

    The seed is one with which no bin is nearly a tie, see reference.certain_bins.
    """
    clips = np.random.default_rng(seed).normal(0, 0.5, (batch, frames, 17, 3))
    clips[..., 2] = clips[..., 2] % 1
    clips[:, 0, 3] = clips[:, 0, 2]
    return torch.from_numpy(clips.astype(np.float32))


SIZES = pytest.mark.parametrize(
    ("channel", "depth", "frames", "batch"),
    [(32, 3, 27, 2), (64, 2, 81, 1), (128, 2, 9, 1), (16, 1, 1, 2)],
)


@SIZES
def test_stage_1_and_2_in_float64_equal_the_formulas(channel, depth, frames, batch):
    states, clips = random_pair(channel, depth, frames), random_clips(batch, frames)
    model = build(*states).double()
    with torch.no_grad():
        logits = model.bone_aware(clips.double())
        expected = reference.bone_aware(states[0], clips)
        assert torch.allclose(logits, expected, rtol=0, atol=1e-12)
        bins = reference.certain_bins(expected)
        assert len(bins.unique()) > 1
        features = reference.bone_features(clips, bins)
        assert torch.allclose(model.bone_features(clips.double()), features, atol=1e-12)
        pose = model.lifter(clips.double(), features)
        expected = reference.lifter(states[1], clips, features)
        # The graph's weights 1/sqrt(degree) are kept in float32.
        assert torch.allclose(pose, expected, rtol=0, atol=1e-7)


@EVERY_BACKEND
@SIZES
def test_every_backend_in_float32(backend, channel, depth, frames, batch):
    states, clips = random_pair(channel, depth, frames), random_clips(batch, frames)
    model = build(*states)
    with torch.no_grad():
        logits = model.bone_aware(clips)
        expected = reference.bone_aware(states[0], clips)
        assert torch.allclose(logits.double(), expected, rtol=0, atol=5e-6)
        features = reference.bone_features(clips, reference.certain_bins(expected))
        pose = model.lifter(clips, features.float())
        expected = reference.lifter(states[1], clips, features)
    assert torch.allclose(pose.double(), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("slots", ["released", "child"])
def test_flip_averaged_prediction_equals_the_formulas(slots):
    states, clips = random_pair(32, 3, 27), random_clips(2, 27)
    direct = reference.mdtf(*states, clips, slots)
    turned = reference.mirrored(reference.mdtf(*states, reference.mirrored(clips), slots))
    found = predict(build(*states, slots), clips.numpy(), H36M, flip=True, batch_size=1)
    assert np.allclose(found, (direct + turned) / 2, rtol=0, atol=5e-6)
    assert not np.allclose(direct, turned, atol=1e-2)


# --- Against recorded results -----------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(parity_folder):
    """The arrays, and both stages' weights."""
    with np.load(parity_folder / "parity_small.npz") as file:
        arrays = dict(file)
    states = [
        {
            name.removeprefix(prefix): torch.from_numpy(value)
            for name, value in arrays.items()
            if name.startswith(prefix)
        }
        for prefix in ("bam/", "refine/")
    ]
    return arrays, states


@EVERY_BACKEND
def test_recorded_logits_features_and_poses(backend, recorded):
    arrays, states = recorded
    model = build(*states)
    clips = torch.from_numpy(arrays["input2d"])
    with torch.no_grad():
        logits = model.bone_aware(clips)
        features = model.bone_features(clips)
        pose = model(clips)
    assert np.abs(logits.numpy() - arrays["bam_logits"]).max() < 1e-5
    for recorded_logits in (arrays["bam_logits"], logits):  # nor is there a tie in the record
        bins = reference.certain_bins(torch.as_tensor(recorded_logits))
        assert sorted(bins.unique().tolist()) == [0, 1, 2, 3, 4, 5]
    assert np.abs(features.numpy() - arrays["joint_bone_features"][..., 3:]).max() < 1e-5
    assert np.abs(clips.numpy() - arrays["joint_bone_features"][..., :3]).max() == 0
    assert np.abs(pose.numpy() - arrays["pose3d"]).max() < 1e-5
    flipped = predict(model, arrays["input2d"], H36M, flip=True)
    assert np.abs(flipped - arrays["pose3d_flip_tta"]).max() < 1e-5


def test_the_formulas_themselves_give_the_recorded_poses(recorded):
    arrays, states = recorded
    pose = reference.mdtf(*states, torch.from_numpy(arrays["input2d"]))
    assert np.abs(pose.numpy() - arrays["pose3d"]).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("bam", reference.bone_aware_shapes()),
        ("tiny", reference.lifter_shapes(64, 8)),
        ("large", reference.lifter_shapes(128, 12)),
    ],
)
def test_published_names_and_shapes_are_just_ours(parity_folder, name, shapes):
    lines = (parity_folder / f"state_dict_{name}.txt").read_text().splitlines()
    published = {}
    for line in lines:
        key, shape = line.split("\t")
        published[key] = tuple(int(n) for n in shape.strip("()").split(",") if n.strip())
    assert shapes == published
    # In the order too: it is that of the released optimizer's states.
    stage, depth = {"bam": (1, 4), "tiny": (2, 8), "large": (2, 12)}[name]
    assert list(released_names(stage, depth)) == list(published)

    translated = translate_released({k: torch.empty(s) for k, s in published.items()})
    module = {
        "bam": lambda: BoneAwareModule(64, 4),
        "tiny": lambda: Lifter(H36M, 243, 64, 8),
        "large": lambda: Lifter(H36M, 243, 128, 12),
    }[name]()
    ours = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in translated.items()} == ours
    assert len(translated) == len(published)


def test_flip_pose_and_bone_features_agree_with_the_formulas():
    clips = random_clips(2, 9)
    bins = torch.from_numpy(np.random.default_rng(0).integers(0, 6, (2, 9, 17)))
    assert torch.equal(flip_pose(clips, H36M), reference.mirrored(clips))
    for slots in ("released", "child"):
        found = bone_features(clips, bins, H36M, slots).double()
        assert torch.allclose(found, reference.bone_features(clips, bins, slots), atol=1e-6)
