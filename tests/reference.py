"""The model once more, as functions of published weights, in float64 and with the loops in sight.

Written from the paper's formulas, not from model/: what both give must agree. Weights are dicts
under the published names. B clips, T frames, J = 17 joints, C channels.
"""

import math

import numpy as np
import torch

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
MIRROR = (0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13)


# --- Names and shapes of the published files --------------------------------------------------


def _linear(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _pair(name, size):
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def _mixer(name, c, graph=False, states=16, taps=4):
    rank = math.ceil(c / 16)
    shapes = {f"{name}.A_log": (c, states), f"{name}.A_b_log": (c, states)}
    shapes |= {f"{name}.D": (c,), f"{name}.D_b": (c,)}
    shapes |= {f"{name}.in_proj.weight": (2 * c, c), f"{name}.out_proj.weight": (c, c)}
    for end in ("", "_b"):
        shapes[f"{name}.conv1d{end}.weight"] = (c, 1, taps)
        shapes[f"{name}.conv1d{end}.bias"] = (c,)
        shapes[f"{name}.x_proj{end}.weight"] = (rank + 2 * states, c)
        shapes |= _linear(f"{name}.dt_proj{end}", rank, c)
        if graph:
            shapes |= _pair(f"{name}.norm_gcn{end}", c)
            shapes |= _linear(f"{name}.gcn{end}.U", c, c) | _linear(f"{name}.gcn{end}.V", c, c)
            norm = f"{name}.gcn{end}.batch_norm"
            shapes |= _pair(norm, 17)
            shapes |= {f"{norm}.running_mean": (17,), f"{norm}.running_var": (17,)}
            shapes[f"{norm}.num_batches_tracked"] = ()
    return shapes


def _block(name, c, graph=False, states=16):
    norm = "mambanorm" if graph else "norm"
    shapes = _mixer(f"{name}.{'gcnmamba' if graph else 'mamba'}", c, graph, states)
    shapes |= _pair(f"{name}.{norm}1", c) | _pair(f"{name}.{norm}2", c)
    return shapes | _linear(f"{name}.mlp.fc1", c, 2 * c) | _linear(f"{name}.mlp.fc2", 2 * c, c)


def bone_aware_shapes(channel=64, depth=4, states=16):
    shapes = _linear("Spatial_patch_to_embedding", 3, channel)
    for i in range(depth):
        c = channel // 2**i
        shapes |= _block(f"STEblocks.{i}", c, states=states)
        shapes |= _block(f"TTEblocks.{i}", c, states=states)
        shapes |= _pair(f"Spatial_norm.{i}", c) | _pair(f"Temporal_norm.{i}", c)
        shapes |= _linear(f"mlp.{i}", c, c // 2 if i < depth - 1 else 6)
    return shapes


def lifter_shapes(channel=64, depth=8, frames=243, states=16):
    c = channel
    shapes = {"Spatial_pos_embed": (1, 17, c), "Temporal_pos_embed": (1, frames, c)}
    shapes |= _linear("Spatial_patch_to_embedding1", 3, c)
    shapes |= _linear("Spatial_patch_to_embedding2", 3, c)
    for i in range(depth):
        shapes |= _block(f"STEblocks.{i}", c, graph=True, states=states)
        shapes |= _block(f"TTEblocks.{i}", c, states=states)
    for axis in ("Spatial", "Temporal"):
        shapes |= _block(f"limb{axis}Mamba", c, states=states) | _pair(f"limb{axis}Norm", c)
        shapes |= _pair(f"{axis}_norm", c)
    shapes |= _linear("fusion", 2 * c, 2) | _pair("head.0", c) | _linear("head.1", c, 3)
    return shapes


def random_weights(shapes, seed):
    """Weights of the size trained ones have, none of them at its neutral value."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            value = np.array(7)
        elif "A_log" in name or "A_b_log" in name:
            value = np.log(np.arange(1, shape[1] + 1)) + rng.normal(0, 0.1, shape)
        elif name.endswith("running_var"):
            value = rng.uniform(0.3, 2, shape)
        elif "dt_proj" in name and name.endswith("bias"):
            value = rng.uniform(-6, -1, shape)
        elif name.endswith("weight") and len(shape) > 1:
            value = rng.normal(0, 0.7 / math.sqrt(np.prod(shape[1:])), shape)
        elif name.endswith("weight") or ".D" in name:
            value = 1 + rng.normal(0, 0.2, shape)
        else:
            value = rng.normal(0, 0.3, shape)
        weights[name] = torch.from_numpy(np.asarray(value))
    return {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}


# --- The model --------------------------------------------------------------------------------


class Weights:
    """Published weights in float64, looked up below a name."""

    def __init__(self, state, name=""):
        self.state, self.name = state, name

    def at(self, name):
        return Weights(self.state, f"{self.name}{name}.")

    def __call__(self, name):
        return self.state[self.name + name].double()

    def __contains__(self, name):
        return self.name + name in self.state


def linear(w, x):
    y = x @ w("weight").T
    return y + w("bias") if "bias" in w else y


def layer_norm(w, x, eps):
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + eps) * w("weight") + w("bias")


def silu(x):
    return x / (1 + torch.exp(-x))


def graph_conv(w, x, adjacency):
    degree = adjacency.sum(1)
    spread = torch.zeros_like(x)
    neighbours = linear(w.at("V"), x)
    for i in range(17):
        for j in range(17):
            if adjacency[i, j]:
                spread[:, i] += neighbours[:, j] / torch.sqrt(degree[i] * degree[j])
    mixed = spread + linear(w.at("U"), x)
    norm = w.at("batch_norm")
    for j in range(17):
        scaled = (mixed[:, j] - norm("running_mean")[j]) / torch.sqrt(norm("running_var")[j] + 1e-5)
        mixed[:, j] = scaled * norm("weight")[j] + norm("bias")[j]
    return torch.clamp(x + mixed, min=0)


def one_direction(w, end, x, z):
    """(rows, L, C), already flipped for the backward direction."""
    length, c = x.shape[1:]
    taps = w(f"conv1d{end}.weight")[:, 0]
    convolved = torch.zeros_like(x)
    for t in range(length):
        for k in range(taps.shape[1]):
            if t - k >= 0:
                convolved[:, t] += x[:, t - k] * taps[:, taps.shape[1] - 1 - k]
    u = silu(convolved + w(f"conv1d{end}.bias"))
    projected = linear(w.at(f"x_proj{end}"), u)
    rank = projected.shape[-1] - 2 * 16
    dt, b, c_out = projected[..., :rank], projected[..., rank : rank + 16], projected[..., -16:]
    delta = torch.log1p(torch.exp(linear(w.at(f"dt_proj{end}"), dt)))
    a = -torch.exp(w("A_log" if not end else "A_b_log"))
    state = torch.zeros(len(x), c, 16, dtype=torch.float64)
    y = torch.zeros_like(x)
    for t in range(length):
        drive = (delta[:, t] * u[:, t])[:, :, None] * b[:, t, None, :]
        state = torch.exp(delta[:, t, :, None] * a) * state + drive
        y[:, t] = (state * c_out[:, t, None, :]).sum(-1) + w(f"D{end}") * u[:, t]
    return y * silu(z)


def mixer(w, x, adjacency=None):
    """(rows, L, C); an adjacency makes it the GCN-enhanced one."""
    x, z = linear(w.at("in_proj"), x).chunk(2, -1)
    outputs = []
    for end in ("", "_b"):
        flip = (lambda v: v.flip(1)) if end else (lambda v: v)
        seen = flip(x)
        if adjacency is not None:
            order = range(16, -1, -1) if end else range(17)
            seen = layer_norm(w.at(f"norm_gcn{end}"), seen, 1e-5)
            seen = graph_conv(w.at(f"gcn{end}"), seen, adjacency[list(order)][:, list(order)])
        outputs.append(flip(one_direction(w, end, seen, flip(z))))
    return linear(w.at("out_proj"), (outputs[0] + outputs[1]) / 2)


def block(w, x, adjacency=None):
    norm, inner = ("norm", "mamba") if adjacency is None else ("mambanorm", "gcnmamba")
    x = x + mixer(w.at(inner), layer_norm(w.at(f"{norm}1"), x, 1e-6), adjacency)
    hidden = linear(w.at("mlp.fc1"), layer_norm(w.at(f"{norm}2"), x, 1e-6))
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return x + linear(w.at("mlp.fc2"), hidden)


def over_joints(x, function):
    return torch.stack([function(clip) for clip in x])


def over_frames(x, function):
    return torch.stack([function(clip.transpose(0, 1)).transpose(0, 1) for clip in x])


def h36m_adjacency():
    adjacency = torch.zeros(17, 17, dtype=torch.float64)
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            adjacency[joint, parent] = adjacency[parent, joint] = 1
    return adjacency


def bone_aware(state, pose_2d):
    """(B, T, J, 3) -> logits (B, T, J, 6)."""
    w = Weights(state)
    x = linear(w.at("Spatial_patch_to_embedding"), pose_2d.double())
    level = 0
    while f"mlp.{level}.weight" in state:
        x = over_joints(x, lambda v, i=level: block(w.at(f"STEblocks.{i}"), v))
        x = layer_norm(w.at(f"Spatial_norm.{level}"), x, 1e-6)
        x = over_frames(x, lambda v, i=level: block(w.at(f"TTEblocks.{i}"), v))
        x = layer_norm(w.at(f"Temporal_norm.{level}"), x, 1e-6)
        x = linear(w.at(f"mlp.{level}"), x)
        level += 1
    return x


def bone_features(pose_2d, bins, slots="released"):
    features = torch.zeros(*pose_2d.shape[:3], 3, dtype=torch.float64)
    bones = [(joint, parent) for joint, parent in enumerate(PARENTS) if parent >= 0]
    for bone, (joint, parent) in enumerate(bones):
        dx, dy, _ = (pose_2d[:, :, joint].double() - pose_2d[:, :, parent].double()).unbind(-1)
        polar = (2 * bins[:, :, joint].double() + 1) / 12
        r = torch.sqrt(dx**2 + dy**2)
        z = r / torch.tan(polar * math.pi)
        azimuth = torch.atan2(dy, dx) / math.pi
        slot = bone if slots == "released" else joint
        features[:, :, slot] = torch.stack((azimuth, polar, torch.sqrt(r**2 + z**2)), -1)
    return features


def lifter(state, pose_2d, features):
    """(B, T, J, 3) twice -> (B, T, J, 3)."""
    w, adjacency = Weights(state), h36m_adjacency()
    bones = linear(w.at("Spatial_patch_to_embedding2"), features)
    bones = over_joints(bones, lambda v: block(w.at("limbSpatialMamba"), v))
    bones = layer_norm(w.at("limbSpatialNorm"), bones, 1e-6)
    bones = over_frames(bones, lambda v: block(w.at("limbTemporalMamba"), v))
    bones = layer_norm(w.at("limbTemporalNorm"), bones, 1e-6)

    x = linear(w.at("Spatial_patch_to_embedding1"), pose_2d.double()) + w("Spatial_pos_embed")
    level = 0
    while f"STEblocks.{level}.mlp.fc1.weight" in state:
        x = over_joints(x, lambda v, i=level: block(w.at(f"STEblocks.{i}"), v, adjacency))
        x = layer_norm(w.at("Spatial_norm"), x, 1e-6)
        if level == 0:
            x = x + w("Temporal_pos_embed")[:, :, None]
        x = over_frames(x, lambda v, i=level: block(w.at(f"TTEblocks.{i}"), v))
        x = layer_norm(w.at("Temporal_norm"), x, 1e-6)
        if level == 0:
            scores = linear(w.at("fusion"), torch.cat((x, bones), -1))
            share = torch.exp(scores) / torch.exp(scores).sum(-1, keepdim=True)
            x = share[..., :1] * x + share[..., 1:] * bones
        level += 1
    return linear(w.at("head.1"), layer_norm(w.at("head.0"), x, 1e-5))


def certain_bins(logits, margin=1e-4):
    """The bins that logits (..., 6) choose, (...); fails if a choice is nearly a tie.

    Two right implementations differ by up to 5e-6 in a float32 logit. Where the two best ones are
    nearer than that, they may choose different bins, and the pose then differs by up to 0.8: such
    an input compares rounding, not implementations. So a test takes inputs that have a margin.
    """
    first, second = logits.topk(2, dim=-1).values.unbind(-1)
    nearest = (first - second).min().item()
    assert nearest > margin, f"two bins are only {nearest:.1e} apart: take another input"
    return logits.argmax(-1)


def mdtf(bone_aware_state, lifter_state, pose_2d, slots="released"):
    bins = certain_bins(bone_aware(bone_aware_state, pose_2d))
    return lifter(lifter_state, pose_2d, bone_features(pose_2d, bins, slots))


def mirrored(pose):
    turned = pose[..., list(MIRROR), :].clone()
    turned[..., 0] *= -1
    return turned
