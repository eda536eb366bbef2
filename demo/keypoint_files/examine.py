"""Whether the numbers of a keypoint file can be what it says: no number is taken at face value.

What can only be one thing is brought to pixels and to confidences from 0 to 1, and said; what
cannot be a picture's keypoints is refused. N sightings, J keypoints.
"""

import numpy as np

from demo.keypoint_files.found import Sightings
from demo.people import LARGEST_PIXEL
from lib.keypoints import BLAZEPOSE_33, Layout
from lib.skeleton import H36M

Size = tuple[int, int]  # width, height

# Coordinates that stay below, by and large, are shares of the picture; those from here to FEWEST
# are neither shares nor pixels.
SHARES = 2.0
FEWEST = 10.0
# With more negative coordinates than this (y, x), shares run from -1 to 1.
NEGATIVE, NEGATIVE_LEFT = 0.1, 0.35
# Confidences a little above 1 are those of heatmaps; from PERCENT on, they are percent.
ABOVE_ONE, PERCENT = 1.5, 30.0
SLIGHTLY = -0.1  # of the largest: confidences of heatmaps where nothing was found
MOVENET = 17  # keypoints
SMALL_PICTURE = 300  # pixels of the shorter side of one that a person of 100 may fill
OUTSIDE = 0.05  # of the points, that is said
CROWD, SAME_PLACE = 10, 0.2  # people of one image; from one to the next, in sizes
FARTHEST_STEP = 0.5  # of a person, in sizes, from frame to frame
MOSTLY_INSIDE = 0.75  # of the points between 0 and 1
BONES_VARY = 0.25  # in their length with a depth, against without it, or they are of 3D poses
_BONES = [
    (f"{side}_{one}", f"{side}_{other}")
    for side in ("left", "right")
    for one, other in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"))
] + [("left_hip", "right_hip"), ("left_shoulder", "right_shoulder")]
MOST = 0.9  # of the sightings, in which something must hold to be said


def recognise_depth(sightings: Sightings, layout: Layout, keypoints: np.ndarray) -> None:
    """MediaPipe's x and y in shares of the picture, and a depth that nothing names."""
    found = keypoints[np.isfinite(keypoints).all(axis=-1)]
    if layout != BLAZEPOSE_33 or sightings.columns != "xyc" or not len(found):
        return
    inside = ((found[:, :2] > 0) & (found[:, :2] < 1)).all(axis=-1).mean()
    if inside > MOSTLY_INSIDE and len(np.unique(found[found[:, 2] < 0, 2])) > 1:
        sightings.columns = "xyz"
        sightings.assumed.append("the third number, partly below 0, is taken as MediaPipe's depth")


# --- Confidence -----------------------------------------------------------------------------


def confidences(sightings: Sightings, keypoints: np.ndarray) -> np.ndarray:
    """(N, J) from 0 to 1; 0 where a keypoint was not seen. Raises UserError: they are none."""
    columns, places = sightings.columns, keypoints[..., :2]
    unseen = ~(np.abs(keypoints) < LARGEST_PIXEL).all(axis=-1)  # NaN is not below it
    if columns == "xyz":
        unseen = ~(np.abs(places) < LARGEST_PIXEL).all(axis=-1)
    # A place of exactly 0, 0 is how programs write that there is none.
    unseen |= (places == 0).all(axis=-1)
    if not columns.endswith("c"):
        sightings.assumed.append("no confidences; 1 for every keypoint that has a place")
        return np.where(unseen, 0.0, 1.0)
    numbers = np.where(unseen, 0.0, keypoints[..., -1])
    negative = np.unique(numbers[numbers < 0])
    top = float(numbers.max(initial=0))
    slightly = len(negative) and negative[0] > SLIGHTLY * top and (numbers < 0).mean() < OUTSIDE
    if (len(negative) > 1 and not slightly) or top > 100:
        low = float(numbers.min(initial=0))
        raise sightings.wrong(
            f"the last number of the keypoints, from {low:.3g} to {top:.3g}, is no confidence; are"
            " these poses in 3D? give x, y in pixels and a confidence from 0 to 1"
        )
    numbers = np.maximum(numbers, 0)
    if not (numbers > 0).any():
        raise sightings.wrong(
            "every confidence is 0, so nothing was found; if the places are right, leave the"
            " confidences out"
        )
    if (sightings.visibility or top == 2) and np.isin(numbers, (0, 1, 2)).all():
        if not sightings.visibility:
            sightings.assumed.append("confidences 0, 1 and 2 are COCO's: all above 0 are seen")
        return (numbers > 0).astype(float)
    if top <= 1:
        return numbers
    if top <= ABOVE_ONE:
        return np.minimum(numbers, 1)
    scale = 100.0 if top > PERCENT else top
    what = "are percent" if scale == 100 else f"are divided by {top:.3g}, the largest"
    sightings.assumed.append(f"confidences up to {top:.3g} {what}")
    return numbers / scale


# --- Places ---------------------------------------------------------------------------------


def refuse_poses_in_space(
    sightings: Sightings, layout: Layout, keypoints: np.ndarray, confidence: np.ndarray
) -> None:
    """Raise UserError where the hips are the origin, or bones keep their length with a depth."""
    flat = np.concatenate([keypoints[..., :2], np.ones((*keypoints.shape[:2], 1))], axis=-1)
    finite = np.isfinite(flat).all(axis=(1, 2))
    if not finite.any():
        return
    pelvis = layout.to_h36m(np.where(np.isfinite(flat), flat, 0))[finite, 0, :2]
    others = flat[finite, :, :2]
    scale = float(np.abs(others).max(initial=0))
    # Hips that were not found may lie there too; but then the rest of the body lies below 0, 0.
    around = bool(scale) and (others < 0).any(axis=-1).mean() > 0.25
    near = (0.05 if "z" in sightings.columns else 1e-4) * scale  # MediaPipe's are about there
    if around and (np.abs(pelvis).max(axis=-1) > near).mean() < 1 - MOST:
        raise sightings.wrong(
            "the hips are at 0, 0 throughout: these are poses relative to them, not places in a"
            " picture; give x, y in pixels"
        )
    in_shares = np.median(np.abs(others)) < SHARES  # of another unit than confidences
    varies = sightings.columns != "xyc" or in_shares or _variation(layout, keypoints, confidence)
    if varies < BONES_VARY:
        raise sightings.wrong(
            "with the last number as a depth, all bones keep their length: these are poses in 3D;"
            " give x, y in pixels and a confidence"
        )


def _variation(layout: Layout, keypoints: np.ndarray, confidence: np.ndarray) -> float:
    """How much the lengths of limbs vary with the third number, against without it."""
    ratios = []
    for pair in _BONES:
        a, b = map(layout.names.index, pair)
        seen = (confidence[:, a] > 0) & (confidence[:, b] > 0)
        way = keypoints[seen, a, :3] - keypoints[seen, b, :3]
        lengths = [np.linalg.norm(way[:, :n], axis=-1) for n in (3, 2)]
        if seen.sum() < 10 or not all(length.mean() for length in lengths):
            continue
        in_space, in_picture = (float(length.std() / length.mean()) for length in lengths)
        if in_picture > 0.03:
            ratios.append(in_space / in_picture)
    return float(np.median(ratios)) if len(ratios) >= 2 else 1.0


def to_pixels(
    sightings: Sightings,
    layout: Layout,
    keypoints: np.ndarray,
    confidence: np.ndarray,
    size: Size | None,
) -> np.ndarray:
    """Places (N, J, 2) in pixels of a picture of `size`. Raises UserError: they cannot be."""
    places = keypoints[..., :2]
    seen = places[confidence > 0]
    if not len(seen):
        return places
    reach = float(np.percentile(np.abs(seen).max(axis=-1), 95))
    low, high = seen.min(axis=0), seen.max(axis=0)
    spread = f"x from {low[0]:.4g} to {high[0]:.4g}, y from {low[1]:.4g} to {high[1]:.4g}"
    negative = (seen < 0).any(axis=-1).mean()
    if reach > SHARES:
        if reach < FEWEST or negative > 0.5:
            raise sightings.wrong(
                f"{spread}: neither pixels of a picture nor shares of its size; poses in 3D? give"
                " x, y in pixels"
            )
        return places
    if len(np.unique(seen, axis=0)) < 3:
        return places  # nothing can be told of so few
    # MediaPipe's, with a depth, run from 0 to 1, but may leave the picture on every side. Else
    # people in -1 to 1 reach above the middle; those who only leave at the left do not.
    is_mediapipe = layout == BLAZEPOSE_33 and "z" in sightings.columns
    left, above = (seen < 0).mean(axis=0)
    from_0 = is_mediapipe or (above <= NEGATIVE and left <= NEGATIVE_LEFT)
    if sightings.columns.startswith("xyz") and not from_0:
        raise sightings.wrong(f"{spread}, with a depth: poses in 3D; give x, y in pixels")
    third = keypoints[..., 2][confidence > 0] if sightings.columns == "xyc" else np.ones(1)
    if ABOVE_ONE < third.max() <= PERCENT and (third % 1).any():
        raise sightings.wrong(f"{spread} and a third number that is no confidence: poses in 3D?")
    if size is None:
        raise sightings.wrong(
            f"{spread} are shares of the picture, not pixels; give its size, --size 1280x720, or"
            " the --video"
        )
    sightings.in_shares = True
    scale = np.array(size, dtype=float)
    in_words = f"{size[0]}x{size[1]}"
    if from_0:
        sightings.assumed.append(f"{spread} are shares of the picture, times {in_words}")
        return places * scale
    of_each = np.percentile(np.abs(seen[:, 1]), 99) > 1.02 * scale[1] / scale[0]
    if sightings.range_of_each_axis or (of_each and reach <= 1.2):
        sightings.assumed.append(f"{spread} run from -1 to 1 over the picture, {in_words}")
        return (places + 1) / 2 * scale
    sightings.assumed.append(
        f"{spread} run from -1 to 1 over the picture's width, {in_words}, and y in the same unit"
    )
    return places * scale[0] / 2 + scale / 2


def resolve_size(
    sightings: Sightings, given: Size | None, shown: Size | None = None
) -> tuple[Size | None, Size | None]:
    """The size that the file's pixels refer to, and the size of the picture that is wanted.

    given: by the user or the video; shown: the same picture's in square pixels, if it has others.
    """
    sizes = sightings.facts.sizes
    if any(min(size) < 1 for size in sizes):
        wrong = min(sizes)
        raise sightings.wrong(f"{wrong[0]}x{wrong[1]} is no image size; give --size 1280x720")
    own = (max(w for w, _ in sizes), max(h for _, h in sizes)) if sizes else None
    if own and len(sizes) > 1:
        sightings.assumed.append(
            f"images of {len(sizes)} sizes; the largest, {own[0]}x{own[1]}, is taken for all"
        )
    if own is None or given is None or own == given:
        return own or given, given or own
    if any(size and is_alike(own, size) for size in (given, shown)):
        sightings.assumed.append(
            f"of pictures of {own[0]}x{own[1]}; brought to {given[0]}x{given[1]}"
        )
        return own, given
    sightings.assumed.append(
        f"says {own[0]}x{own[1]}; {given[0]}x{given[1]} is taken, as the video or --size has it"
    )
    return given, given


def is_alike(size: Size, other: Size) -> bool:
    """Whether pictures of these sizes have the same shape."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= 0.01 * size[0] * other[1]


def question_picture(
    sightings: Sightings, places: np.ndarray, confidence: np.ndarray, size: Size | None
) -> None:
    """Say where many points lie outside of the picture, or all in a corner.

    Raises UserError where they can hardly be pixels.
    """
    points = places[confidence > 0]
    if not len(points):
        return
    high = points.max(axis=0)
    few = len(np.unique(points, axis=0)) < 3  # of which nothing can be told
    if size is None:
        if high.max() <= 100 and not few:
            sightings.assumed.append(
                "all points lie within 100x100; are they percent of a picture?"
            )
        return
    if high.max() <= 100 and min(size) >= SMALL_PICTURE and not few:
        raise sightings.wrong(
            f"all points lie within 100x100 of {size[0]}x{size[1]}; are they percent of it? give"
            " pixels, or shares from 0 to 1"
        )
    if (high <= np.array(size) / 2).all():
        sightings.assumed.append(
            f"all points lie in the upper left {high[0]:.0f}x{high[1]:.0f} of {size[0]}x{size[1]};"
            " are they of a smaller picture (--size)?"
        )
    outside = _share_outside(points, size)
    if outside <= OUTSIDE:
        return
    high = np.ceil(points.max(axis=0)).astype(int)
    holds = f"{max(high[0], 1)}x{max(high[1], 1)}"
    told = f"{outside:.0%} of the points lie outside of {size[0]}x{size[1]}"
    if (points >= -1).all():
        told += f"; {holds} would hold them (--size)"
    if _share_outside(points, size[::-1]) <= OUTSIDE:
        told += f"; {size[1]}x{size[0]} would hold them too: is the height named first?"
    sightings.assumed.append(told)


def _share_outside(points: np.ndarray, size: Size) -> float:
    return float(((points < -1) | (points > np.array(size) + 1)).any(axis=-1).mean())


def frames_for_people(
    sightings: Sightings, places: np.ndarray, confidence: np.ndarray, frame: np.ndarray
) -> np.ndarray:
    """The frames (N,), by places (N, J, 2); where the only image shows many people of whom each is
    where the one before is, they are one over time. Raises UserError: so in several images.
    """
    images, counts = np.unique(frame, return_counts=True)
    if not sightings.array_of_many or counts.min() < CROWD:
        return frame
    inside = np.where((confidence > 0)[..., None], places, np.nan)
    steps, sizes = [], []
    for image in images:
        of_image = inside[(frame == image) & (confidence > 0).any(axis=1)]
        extent = np.nanmax(of_image, axis=1) - np.nanmin(of_image, axis=1)
        middle = np.nanmedian(of_image, axis=1)
        steps.append(np.median(np.linalg.norm(np.diff(middle, axis=0), axis=-1)))
        sizes.append(np.median(extent.max(axis=-1)))
    if not (np.array(steps) < SAME_PLACE * np.array(sizes)).all():
        return frame
    if len(images) > 1:
        raise sightings.wrong(
            f"{counts[0]} people at nearly one place in an image: one person over time? give each"
            " frame's number, or one person's array"
        )
    sightings.assumed.append(f"{len(frame)} frames of one person, not {len(frame)} people")
    return np.arange(len(frame))


def question_jumps(
    sightings: Sightings, places: np.ndarray, confidence: np.ndarray, frame: np.ndarray
) -> None:
    """Whether what is taken for one person over time may be several people of one image.

    Raises UserError where the file does not say that it is one.
    """
    one_each = len(np.unique(frame)) == len(frame) > 1
    if not one_each or not (sightings.loose or set(sightings.person) == {1}):
        return
    known = (confidence > 0).any(axis=1)
    inside = np.where((confidence > 0)[known, :, None], places[known], np.nan)
    if len(inside) < 2:
        return
    extent = (np.nanmax(inside, axis=1) - np.nanmin(inside, axis=1)).max(axis=-1)
    middle = np.nanmedian(inside, axis=1)
    steps = np.linalg.norm(np.diff(middle, axis=0), axis=-1) / max(float(np.median(extent)), 1e-9)
    if np.median(steps) > FARTHEST_STEP:
        told = f"people who jump by {np.median(steps):.1f} sizes of theirs from frame to frame"
        if sightings.loose:
            raise sightings.wrong(f"{told}, without the names of their images; of one image?")
        sightings.assumed.append(f"{told}; are they several people of one image?")


def question_posture(
    sightings: Sightings, layout: Layout, places: np.ndarray, confidence: np.ndarray
) -> None:
    """Say where people lie on their side or stand on their head almost always."""
    joints = layout.to_h36m(np.concatenate([places, confidence[..., None]], axis=-1))
    seen = (joints[:, [H36M.index("pelvis"), H36M.index("thorax")], 2] > 0).all(axis=1)
    trunk = joints[seen, H36M.index("thorax"), :2] - joints[seen, H36M.index("pelvis"), :2]
    if len(trunk) < 10:
        return
    if (np.abs(trunk[:, 0]) > 2 * np.abs(trunk[:, 1])).mean() > MOST:
        if sightings.of_array and sightings.in_shares and layout.num_keypoints == MOVENET:
            raise sightings.wrong(
                "people lie on their side throughout, as in MoveNet's output, which is y, x,"
                " confidence in shares of the picture; exchange x and y, or give pixels"
            )
        sightings.assumed.append(
            "people lie on their side almost throughout; are x and y exchanged?"
        )
    elif (trunk[:, 1] > 2 * np.abs(trunk[:, 0])).mean() > MOST:
        sightings.assumed.append(
            "people stand on their head almost throughout; does y point up? It must point down"
        )
