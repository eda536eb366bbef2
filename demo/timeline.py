"""Time: values from one set of times to another, and averages over time.

F frames at `times` (F,) in seconds, strictly rising and not necessarily even.
"""

import numpy as np

SIGMAS = 3.0  # how far a Gaussian average reaches
STEPS = 4.0  # samples of an uneven curve in one sigma of the average
TENTH = 0.1  # of a frame: how far even frames may be from their times
CLOSE, FASTEST = 0.1, 120.0  # share of the steps that are close; frames a second of even values


def even_times(start: float, end: float, rate: float) -> np.ndarray:
    """Even times from start to end, as near to `rate` a second as whole steps are."""
    steps = max(1, round((end - start) * rate)) if end > start else 0
    return np.linspace(start, end, steps + 1)


def at_times(values: np.ndarray, times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Values (F, ...) known at `times` -> (W, ...) at other times, those of the ends outside.

    Between two frames runs the cubic with the slopes of the parabola through each and its two
    neighbours; a frame's own time gives its own value.
    """
    if len(times) == 1:
        return np.repeat(values, len(wanted), axis=0)
    after = np.clip(np.searchsorted(times, wanted, side="right"), 1, len(times) - 1)
    before = after - 1
    step = (times[after] - times[before]).reshape(-1, *[1] * (values.ndim - 1))
    share = ((wanted - times[before]) / (times[after] - times[before])).reshape(step.shape)
    share = np.clip(share, 0, 1)
    slopes = np.gradient(values, times, axis=0, edge_order=2 if len(times) > 2 else 1)
    rest = 1 - share
    mixed = (
        values[before] * rest**2 * (1 + 2 * share)
        + values[after] * share**2 * (1 + 2 * rest)
        + step * share * rest * (slopes[before] * rest - slopes[after] * share)
    )
    return mixed.astype(values.dtype, copy=False)


def averaged(values: np.ndarray, times: np.ndarray, seconds: float) -> np.ndarray:
    """Values (F, ...) -> the same, each the average of the moment around it.

    A straight line is fitted to each moment, so that a steady motion keeps its course up to the
    ends. seconds: the standard deviation of the Gaussian weights.
    """
    if len(times) == 1:
        return values
    length = times[-1] - times[0]
    rate = max(STEPS / seconds, (len(times) - 1) / length)
    grid = even_times(times[0], times[-1], rate)
    reach = int(np.ceil(SIGMAS * seconds * rate))
    offset = np.arange(-reach, reach + 1) / (seconds * rate)
    weight = np.exp(-0.5 * offset**2)

    def moment(curve: np.ndarray, power: int) -> np.ndarray:
        # Convolution turns the kernel round: the offsets of odd powers change their sign.
        kernel = weight * (-offset) ** power
        return np.convolve(curve, kernel)[reach : reach + len(grid)]

    ones = np.ones(len(grid))
    mass, lean, spread = (moment(ones, power) for power in (0, 1, 2))
    columns = []
    for column in values.reshape(len(values), -1).T:
        even = np.interp(grid, times, column)
        fitted = spread * moment(even, 0) - lean * moment(even, 1)
        columns.append(np.interp(times, grid, fitted / (mass * spread - lean**2)))
    return np.stack(columns, axis=-1).reshape(values.shape)


def is_even(times: np.ndarray) -> bool:
    """Whether the frames follow each other evenly, to a tenth of a frame."""
    even = np.linspace(times[0], times[-1], len(times))
    step = (times[-1] - times[0]) / max(len(times) - 1, 1)
    return bool(np.abs(times - even).max() <= TENTH * step)


def evenly(values: np.ndarray, times: np.ndarray, shot: np.ndarray) -> tuple[np.ndarray, float]:
    """Values (F, ...) at uneven times -> the same at an even rate, and that rate.

    The rate is that of the closest frames, so that none is lost. shot: (F,); between frames of two
    shots nothing is mixed.
    """
    rate = min(1 / float(np.quantile(np.diff(times), CLOSE)), FASTEST)
    wanted = even_times(times[0], times[-1], rate)
    borders = np.flatnonzero(np.diff(shot)) + 1
    # From a shot to the next it is half way between their frames.
    parts = np.searchsorted(wanted, (times[borders - 1] + times[borders]) / 2)
    pieces = [
        at_times(known, seconds, place)
        for known, seconds, place in zip(
            np.split(values, borders),
            np.split(times, borders),
            np.split(wanted, parts),
            strict=True,
        )
    ]
    return np.concatenate(pieces), (len(wanted) - 1) / (wanted[-1] - wanted[0])
