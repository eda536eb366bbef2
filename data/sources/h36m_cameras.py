"""Human3.6M's cameras: where they stand for each subject, and how their lenses distort.

The data set's published calibration, as in VideoPose3D's tables. World: z up, floor at z = 0.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lib.arrays import Floats
from lib.camera import H36M_CAMERAS

CAMERAS = tuple(H36M_CAMERAS)  # the order of the four in every file: 54138969, 55011271, …


@dataclass(frozen=True)
class Placement:
    """quaternion: (w, x, y, z), turns the camera's axes into the world's; position: mm."""

    quaternion: tuple[float, float, float, float]
    position: tuple[float, float, float]

    @cached_property
    def rotation(self) -> Floats:
        """(3, 3): camera -> world."""
        w, x, y, z = np.array(self.quaternion) / np.linalg.norm(self.quaternion)
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )

    def to_camera(self, world: Floats) -> Floats:
        """World points (..., 3) in mm -> the camera's axes (x right, y down, z forward), mm."""
        points: Floats = (world - np.array(self.position)) @ self.rotation  # R^-1 (X - t)
        return points


CORNER = 0.5  # x² + y² there, at depth 1
# Radial k1, k2, k3 and tangential p1, p2, of the model that OpenCV has too.
DISTORTION = {
    "54138969": (-0.207098916, 0.247775182, -0.00307515031, -0.000975698873, -0.00142447161),
    "55011271": (-0.194213629, 0.24040854, 0.00681997556, -0.00161902665, -0.00274089444),
    "58860488": (-0.208338186, 0.255488008, -0.00246049743, 0.00148438697, -0.000759999326),
    "60457274": (-0.198384091, 0.218323678, -0.00894780736, -0.000587205578, -0.001813362),
}


def project(points: Floats, camera: str) -> Floats:
    """Points (..., 3) in the camera's axes, z above 0 -> pixels (..., 2), lens distortion included.

    Far outside of the picture the distortion stays that of its corners: the polynomial says nothing
    about such points.
    """
    k1, k2, k3, p1, p2 = DISTORTION[camera]
    xy = points[..., :2] / points[..., 2:]
    x, y = xy[..., 0], xy[..., 1]
    square = np.minimum(x * x + y * y, CORNER)
    radial = 1 + square * (k1 + square * (k2 + square * k3))
    tangential = np.stack(
        [2 * p1 * x * y + p2 * (square + 2 * x * x), p1 * (square + 2 * y * y) + 2 * p2 * x * y], -1
    )
    lens = H36M_CAMERAS[camera]
    pixels: Floats = (xy * radial[..., None] + tangential) * lens.focal + lens.center
    return pixels


PLACEMENTS = {
    "S1": {
        "54138969": Placement(
            (0.14070565, -0.15007018, -0.7552408, 0.62232804), (1841.107, 4955.2847, 1563.4454)
        ),
        "55011271": Placement(
            (0.6157188, -0.7648363, -0.14833826, 0.11794741), (1761.2786, -5078.007, 1606.265)
        ),
        "58860488": Placement(
            (0.14651473, -0.14647852, 0.76530236, -0.60941756), (-1846.7777, 5215.0464, 1491.9724)
        ),
        "60457274": Placement(
            (0.58340085, -0.7853162, 0.14548823, -0.14749594), (-1794.7897, -3722.699, 1574.8927)
        ),
    },
    "S5": {
        "54138969": Placement(
            (0.14673772, -0.16237096, -0.7551893, 0.6178939), (2097.3916, 4880.945, 1605.7324)
        ),
        "55011271": Placement(
            (0.61597586, -0.7626792, -0.15728192, 0.1189815), (2031.7008, -5167.933, 1612.9231)
        ),
        "58860488": Placement(
            (0.14291371, -0.12907842, 0.7678385, -0.6110143), (-1620.5948, 5171.6587, 1496.437)
        ),
        "60457274": Placement(
            (0.592048, -0.7814218, 0.12747486, -0.15036418), (-1637.1737, -3867.3174, 1547.0332)
        ),
    },
    "S6": {
        "54138969": Placement(
            (0.13378978, -0.15692396, -0.75710905, 0.61988795), (1935.4518, 4950.2456, 1618.0839)
        ),
        "55011271": Placement(
            (0.61471975, -0.7628813, -0.16174768, 0.11819245), (1969.804, -5128.739, 1632.7788)
        ),
        "58860488": Placement(
            (0.15299481, -0.13529131, 0.76460963, -0.6112781), (-1769.5964, 5185.3613, 1476.9934)
        ),
        "60457274": Placement(
            (0.59161013, -0.7804774, 0.1283227, -0.15615939), (-1721.6687, -3884.1313, 1540.4879)
        ),
    },
    "S7": {
        "54138969": Placement(
            (0.14352418, -0.16313368, -0.75483286, 0.6188825), (1974.513, 4926.3545, 1597.8326)
        ),
        "55011271": Placement(
            (0.6141673, -0.76382625, -0.15966456, 0.117792994), (1937.0585, -5119.79, 1631.5665)
        ),
        "58860488": Placement(
            (0.1455006, -0.12874816, 0.76605165, -0.61271393), (-1741.8112, 5208.2495, 1464.8246)
        ),
        "60457274": Placement(
            (0.5912848, -0.78217643, 0.12445474, -0.15196487), (-1734.7106, -3832.4214, 1548.583)
        ),
    },
    "S8": {
        "54138969": Placement(
            (0.14110588, -0.15589868, -0.75619173, 0.61964405), (2150.6519, 4896.161, 1611.9047)
        ),
        "55011271": Placement(
            (0.61696017, -0.7647668, -0.1484635, 0.11158158), (2219.9656, -5148.453, 1613.0441)
        ),
        "58860488": Placement(
            (0.1471444, -0.1337712, 0.76701283, -0.61003697), (-1571.2216, 5137.0186, 1498.1761)
        ),
        "60457274": Placement(
            (0.59278244, -0.78258705, 0.12147816, -0.14631996), (-1476.9133, -3896.7412, 1547.9722)
        ),
    },
    "S9": {
        "54138969": Placement(
            (0.15540588, -0.15548216, -0.75320953, 0.6199595), (2044.4585, 4935.117, 1481.2275)
        ),
        "55011271": Placement(
            (0.6187845, -0.7634735, -0.14132239, 0.11933968), (1990.9597, -5123.8105, 1568.8048)
        ),
        "58860488": Placement(
            (0.13357827, -0.13671005, 0.76894546, -0.61007386), (-1670.9922, 5211.986, 1528.388)
        ),
        "60457274": Placement(
            (0.5879399, -0.7823407, 0.14276144, -0.1479487), (-1696.0435, -3827.0999, 1591.4127)
        ),
    },
    "S11": {
        "54138969": Placement(
            (0.15232472, -0.1544232, -0.75475633, 0.619107), (2098.4402, 4926.5547, 1500.2786)
        ),
        "55011271": Placement(
            (0.61894494, -0.7600917, -0.15300633, 0.12552583), (2083.1824, -4912.173, 1561.0786)
        ),
        "58860488": Placement(
            (0.14943229, -0.15650228, 0.7681234, -0.60263044), (-1609.8153, 5177.336, 1537.8967)
        ),
        "60457274": Placement(
            (0.58942515, -0.7818877, 0.13991211, -0.14715362), (-1590.738, -3854.169, 1578.0176)
        ),
    },
}
