"""The hrnet detector: networks against independent ones, crops and heatmaps by hand."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from demo.detectors import choose_detector
from demo.detectors.hrnet import (
    CROP,
    YoloHRNet,
    crop,
    crop_region,
    decode,
    heatmaps,
    load_hrnet,
)
from demo.detectors.hrnet_model import HRNet
from demo.detectors.yolo import (
    ANCHORS,
    PersonDetector,
    darknet_cfg,
    letterbox,
    weight_count,
)
from lib.errors import UserError
from lib.keypoints import COCO_17
from tests.skips import SHARED, needs_shared

LISTING = SHARED / "parity" / "state_dict_hrnet_w48.txt"


# --- HRNet ----------------------------------------------------------------------------------


def reference_hrnet(w: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """HRNet from the paper's figure, straight from named weights, without a module."""

    def conv(x, name, norm, stride=1):
        weight = w[f"{name}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = w[f"{norm}.running_mean"], w[f"{norm}.running_var"]
        return F.batch_norm(x, mean, var, w[f"{norm}.weight"], w[f"{norm}.bias"], eps=1e-5)

    def bottleneck(x, name):
        y = conv(x, f"{name}.conv1", f"{name}.bn1").relu()
        y = conv(y, f"{name}.conv2", f"{name}.bn2").relu()
        y = conv(y, f"{name}.conv3", f"{name}.bn3")
        if f"{name}.downsample.0.weight" in w:
            x = conv(x, f"{name}.downsample.0", f"{name}.downsample.1")
        return (x + y).relu()

    def exchange(xs, name, outputs):
        for branch in range(len(xs)):
            for block in range(4):
                at = f"{name}.branches.{branch}.{block}"
                y = conv(xs[branch], f"{at}.conv1", f"{at}.bn1").relu()
                xs[branch] = (xs[branch] + conv(y, f"{at}.conv2", f"{at}.bn2")).relu()
        fused = []
        for i in range(outputs):
            total = 0
            for j, x in enumerate(xs):
                at = f"{name}.fuse_layers.{i}.{j}"
                for step in range(i - j):
                    x = conv(x, f"{at}.{step}.0", f"{at}.{step}.1", stride=2)
                    x = x.relu() if step < i - j - 1 else x
                if j > i:
                    x = conv(x, f"{at}.0", f"{at}.1")
                    x = x.repeat_interleave(2 ** (j - i), 2).repeat_interleave(2 ** (j - i), 3)
                total = total + x
            fused.append(total.relu())
        return fused

    x = conv(image, "conv1", "bn1", 2).relu()
    x = conv(x, "conv2", "bn2", 2).relu()
    for block in range(4):
        x = bottleneck(x, f"layer1.{block}")
    xs = [
        conv(x, "transition1.0.0", "transition1.0.1").relu(),
        conv(x, "transition1.1.0.0", "transition1.1.0.1", 2).relu(),
    ]
    xs = exchange(xs, "stage2.0", 2)
    for stage, modules in ((3, 4), (4, 3)):
        at = f"transition{stage - 1}.{stage - 1}.0"
        xs = [*xs, conv(xs[-1], f"{at}.0", f"{at}.1", 2).relu()]
        for module in range(modules):
            last = stage == 4 and module == modules - 1
            xs = exchange(xs, f"stage{stage}.{module}", 1 if last else stage)
    return F.conv2d(xs[0], w["final_layer.weight"], w["final_layer.bias"])


def random_hrnet(width: int) -> HRNet:
    torch.manual_seed(0)
    model = HRNet(width).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            tensor.uniform_(-0.2, 0.2)
    return model


@pytest.mark.parametrize("width", [8, 48])
def test_hrnet_is_the_published_network(width):
    model = random_hrnet(width)
    image = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        found = model(image)
        expected = reference_hrnet(model.state_dict(), image)
    assert found.shape == (2, 17, 24, 16)
    assert expected.abs().max() > 0.1
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_hrnet_w48_has_the_published_size():
    """63,595,745 parameters: 63.6 M in the paper's table."""
    shapes = {name: tuple(value.shape) for name, value in HRNet().state_dict().items()}
    assert sum(parameter.numel() for parameter in HRNet().parameters()) == 63_595_745
    assert shapes["stage4.2.fuse_layers.0.3.0.weight"] == (48, 384, 1, 1)
    assert shapes["transition3.3.0.0.weight"] == (384, 192, 3, 3)
    # The last module fuses into the finest branch alone.
    assert not any(name.startswith("stage4.2.fuse_layers.1") for name in shapes)


@needs_shared(LISTING)
def test_names_and_shapes_are_those_of_the_published_file():
    listed = dict(line.split("\t") for line in LISTING.read_text().splitlines())
    ours = {name: str(tuple(value.shape)) for name, value in HRNet().state_dict().items()}
    assert ours == listed


def test_weights_that_are_none_are_told(tmp_path):
    path = tmp_path / "pose_hrnet_w48_384x288.pth"
    path.write_bytes(b"not weights")
    with pytest.raises(UserError, match="not the published weights"):
        load_hrnet(path)
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not the published weights"):
        load_hrnet(path)


def test_missing_weights_are_told_with_their_place(tmp_path):
    with pytest.raises(UserError) as error:
        choose_detector("hrnet", tmp_path)
    for part in ("yolov3.weights", "pose_hrnet_w48_384x288.pth", str(tmp_path), "https://"):
        assert part in str(error.value)


# --- Crops and heatmaps ---------------------------------------------------------------------


def test_a_crop_keeps_the_aspect_ratio_with_its_margin():
    """A box of 30 x 100: 75 wide at the ratio 0.75, 1.25 times that with the margin."""
    centre, width = crop_region(np.array([100.0, 50, 130, 150]))
    assert centre.tolist() == [115, 100]
    assert width == 75 * 1.25
    centre, width = crop_region(np.array([0.0, 0, 120, 40]))
    assert width == 120 * 1.25


def test_a_crop_shows_its_region():
    frame = np.zeros((200, 300, 3), dtype=np.uint8)
    frame[80:120, 140:160] = (255, 0, 0)  # blue, in OpenCV's order
    patch = crop(frame, np.array([150.0, 100.0]), 72.0)
    assert patch.shape == (3, 384, 288)
    middle = patch[:, 192, 144]
    np.testing.assert_allclose(middle, [-0.485 / 0.229, -0.456 / 0.224, (1 - 0.406) / 0.225], 1e-4)
    # 4 crop pixels a frame pixel: the blue patch is 80 wide and 160 high.
    blue = patch[2] > 0
    assert abs(blue.any(0).sum() - 80) <= 4
    assert abs(blue.any(1).sum() - 160) <= 4


def test_decoding_moves_a_quarter_cell_towards_the_larger_neighbour():
    maps = np.zeros((1, 2, 10, 12), dtype=np.float32)
    maps[0, 0, 4, 5], maps[0, 0, 4, 6], maps[0, 0, 3, 5] = 0.8, 0.3, 0.2
    maps[0, 1, 0, 11] = 0.5  # at the border: no shift
    np.testing.assert_allclose(decode(maps)[0], [[5.25, 3.75, 0.8], [11, 0, 0.5]])


def test_flip_averaging_of_a_symmetric_network_changes_nothing():
    """Blobs of a mirror-symmetric "network" average with themselves, one cell shifted."""

    def network(crops):
        cells = F.avg_pool2d(crops.mean(1, keepdim=True), 4)
        return cells.repeat(1, 17, 1, 1)

    crops = torch.zeros(1, 3, 64, 48)
    crops[..., 20:24, 8:12] = 1.0  # cell (5, 2)
    maps = heatmaps(network, crops)
    assert maps.shape == (1, 17, 16, 12)
    # The mirrored view, shifted right by one cell as HRNet's test does.
    assert maps[0, 0, 5, 2] == pytest.approx(0.5)
    assert maps[0, 0, 5, 3] == pytest.approx(0.5)


# --- YOLOv3 ---------------------------------------------------------------------------------


def test_yolo_weights_are_as_many_as_published():
    """yolov3.weights: 248,007,048 bytes, 20 of them the header."""
    assert weight_count() * 4 + 20 == 248_007_048


def write_darknet(path: Path, width: int, seed: int = 0) -> np.ndarray:
    numbers = np.random.default_rng(seed).normal(0, 0.05, weight_count(width)).astype(np.float32)
    header = np.array([0, 2, 5], dtype=np.int32).tobytes() + np.int64(0).tobytes()
    # Batch norm variances must not be negative; a positive bias elsewhere does no harm.
    path.write_bytes(header + np.abs(numbers).tobytes())
    return np.abs(numbers)


def reference_yolo(cfg: str, numbers: np.ndarray, image: torch.Tensor) -> torch.Tensor:
    """Runs darknet's .cfg text in PyTorch: boxes (N, 85), relative to the input's size."""
    sections = re.findall(r"\[(\w+)\]\n([^\[]*)", cfg)
    outputs, boxes, at, x = [], [], 0, image

    def take(*shape):
        nonlocal at
        count = int(np.prod(shape))
        at += count
        return torch.from_numpy(numbers[at - count : at].reshape(shape))

    for kind, body in sections[1:]:
        options = dict(line.split("=") for line in body.split())
        if kind == "convolutional":
            out, size = int(options["filters"]), int(options["size"])
            norm = "batch_normalize" in options
            bias = take(out)
            scale, mean, var = (take(out), take(out), take(out)) if norm else (None,) * 3
            weight = take(out, x.shape[1], size, size)
            x = F.conv2d(x, weight, None if norm else bias, int(options["stride"]), size // 2)
            if norm:
                x = F.batch_norm(x, mean, var, scale, bias, eps=1e-6)
                x = F.leaky_relu(x, 0.1)
        elif kind == "shortcut":
            x = outputs[-1] + outputs[int(options["from"])]
        elif kind == "route":
            x = torch.cat([outputs[int(i)] for i in options["layers"].split(",")], dim=1)
        elif kind == "upsample":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        elif kind == "yolo":
            mask = [int(i) for i in options["mask"].split(",")]
            anchors = np.array([int(i) for i in options["anchors"].split(",")]).reshape(-1, 2)
            grid = x.shape[-1]
            cells = x.view(3, 85, grid, grid).permute(2, 3, 0, 1)  # row, column, anchor, value
            row, column = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
            centre = torch.stack([column, row], -1)[:, :, None] + cells[..., :2].sigmoid()
            extent = torch.from_numpy(anchors[mask]) * cells[..., 2:4].exp() / image.shape[-1]
            objectness = cells[..., 4:5].sigmoid()
            classes = cells[..., 5:].sigmoid() * objectness
            boxes.append(torch.cat([centre / grid, extent, objectness, classes], -1).view(-1, 85))
        outputs.append(x)
    assert at == len(numbers)
    return torch.cat(boxes)


def test_yolo_is_the_published_network(tmp_path):
    """OpenCV's reading of our .cfg against PyTorch's, with random weights, at a small size."""
    width, size = 4, 96
    numbers = write_darknet(tmp_path / "narrow.weights", width)
    (tmp_path / "narrow.cfg").write_text(darknet_cfg(size, width))
    net = cv2.dnn.readNetFromDarknet(str(tmp_path / "narrow.cfg"), str(tmp_path / "narrow.weights"))
    image = np.random.default_rng(1).random((1, 3, size, size), dtype=np.float32)
    net.setInput(image)
    found = np.concatenate(net.forward(net.getUnconnectedOutLayersNames()))
    expected = reference_yolo(darknet_cfg(size, width), numbers, torch.from_numpy(image)).numpy()
    order = [np.lexsort(boxes[:, :4].round(4).T) for boxes in (found, expected)]
    found, expected = found[order[0]], expected[order[1]]
    np.testing.assert_allclose(found[:, :4], expected[:, :4], rtol=1e-3, atol=1e-4)
    # OpenCV sets probabilities below its own threshold to 0.
    likely = found[:, 5:] > 0
    assert likely.any()
    np.testing.assert_allclose(found[:, 5:][likely], expected[:, 5:][likely], rtol=1e-3)


def test_the_published_width_loads(tmp_path):
    """A file of the published size (all zeros: it takes no disk) is read to its end."""
    path = tmp_path / "yolov3.weights"
    with path.open("wb") as file:
        file.truncate(weight_count() * 4 + 20)
    detector = PersonDetector(path, size=64)
    assert detector(np.zeros((48, 64, 3), np.uint8)).shape == (0, 4)


def test_truncated_weights_are_told(tmp_path):
    write_darknet(tmp_path / "yolov3.weights", width=4)
    with pytest.raises(UserError, match="download it again"):
        PersonDetector(tmp_path / "yolov3.weights", width=8)


def test_letterbox_keeps_the_aspect_ratio():
    frame = np.full((100, 200, 3), 255, dtype=np.uint8)
    square, scale, offset = letterbox(frame, 64)
    assert scale == 64 / 200
    assert offset.tolist() == [0, 16]
    assert (square[16:48] == 255).all() and (square[:16] == 128).all()
    assert len(ANCHORS) == 18


class OneBox:
    """Stands for YOLO: the same box in every frame, none in a black one."""

    def __init__(self, box):
        self.box = np.array([box], dtype=np.float32)

    def __call__(self, frame):
        return self.box if frame.any() else np.zeros((0, 4), np.float32)


def test_keypoints_come_back_in_the_frames_pixels():
    """A network whose heatmaps are the crop's brightness finds a white dot where it is."""

    def network(crops):
        return F.avg_pool2d(crops.mean(1, keepdim=True), 4).repeat(1, 17, 1, 1)

    frame = np.zeros((480, 640, 3), dtype=np.uint8)
    cv2.circle(frame, (330, 210), 6, (255, 255, 255), cv2.FILLED)
    detector = YoloHRNet(OneBox([250, 100, 400, 400]), network)
    black = np.zeros_like(frame)
    found = list(detector([frame, black]))
    assert found[0].shape == (1, 17, 3) and found[1].shape == (0, 17, 3)
    cell = max(150, 300 * 0.75) * 1.25 / (CROP[0] / 4)
    np.testing.assert_allclose(found[0][0, :, :2], [[330, 210]] * 17, atol=1.5 * cell)
    assert detector.layout is COCO_17


def test_flip_averaging_swaps_left_and_right():
    """A "network" that answers j times as strongly for keypoint j."""

    def network(crops):
        strength = torch.arange(17.0).view(1, 17, 1, 1)
        return F.avg_pool2d(crops.mean(1, keepdim=True), 4) * strength

    crops = torch.zeros(1, 3, 64, 48)
    crops[..., 20:24, 8:12] = 1.0  # cell (5, 2)
    maps = heatmaps(network, crops)
    left, right = (COCO_17.names.index(f"{side}_wrist") for side in ("left", "right"))
    # The mirrored view comes one cell to the right, and there the left wrist is a right one.
    for wrist, other in ((left, right), (right, left)):
        np.testing.assert_allclose(maps[0, wrist, 5, 2:4], [wrist / 2, other / 2])


def test_yolo_boxes_come_back_in_the_frames_pixels(tmp_path):
    """A network that sees RGB from 0 to 1, and finds a person, a doubtful one and a dog."""
    write_darknet(tmp_path / "narrow.weights", width=4)
    detector = PersonDetector(tmp_path / "narrow.weights", size=64, width=4)
    rows = np.zeros((3, 85), dtype=np.float32)
    rows[:, :4] = [0.5, 0.5, 0.25, 0.375]  # middle and size, in squares
    rows[0, 5], rows[1, 5], rows[2, 5 + 16] = 0.9, 0.4, 0.9
    seen = []

    class Net:
        setInput = staticmethod(seen.append)

        @staticmethod
        def forward(outputs):
            return [rows[:1], rows[1:]]

    detector._net = Net()
    frame = np.zeros((100, 200, 3), dtype=np.uint8)
    frame[..., 0] = 255  # blue
    # The 64 x 64 square shows 200 x 200 pixels, the frame in its middle.
    np.testing.assert_allclose(detector(frame), [[75, 12.5, 125, 87.5]])
    (blob,) = seen
    assert blob.shape == (1, 3, 64, 64)
    assert blob[0, :, 32, 32].tolist() == [0, 0, 1]
