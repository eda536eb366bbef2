"""curves.png of a run: losses, scores and learning rate over the epochs."""

import os
from typing import TypeAlias

from lib.files import write_atomic

# The numbers of an epoch, as in history.jsonl: 'epoch', 'lr', 'train/total', 'test/mpjpe' …
Line: TypeAlias = dict[str, float]


def draw_curves(path: str | os.PathLike[str], history: list[Line]) -> None:
    """history: a line for each epoch."""
    # Slow to import, and an evaluation never draws.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = [_panel(history, "train/", "loss"), *_score_panels(history), _panel(history, "lr", "")]
    figure = Figure(figsize=(4 * len(groups), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = [line["epoch"] for line in history]
    for axes, (title, curves) in zip(
        figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True
    ):
        for name, values in curves.items():
            axes.plot(epochs, values, marker=".", markersize=4, linewidth=1.2, label=name)
        axes.set_title(title or next(iter(curves)))
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(fontsize="small")
    with write_atomic(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _panel(
    history: list[Line], prefix: str, title: str
) -> tuple[str, dict[str, list[float | None]]]:
    names = [name for name in history[-1] if name.startswith(prefix)]
    curves = {n.removeprefix(prefix) or n: [line.get(n) for line in history] for n in names}
    return title, curves


def _score_panels(history: list[Line]) -> list[tuple[str, dict[str, list[float | None]]]]:
    """Position errors (tens of mm), motion errors (single mm) and shares get a panel each."""
    _, scores = _panel(history, "test/", "")
    motion = {n: v for n, v in scores.items() if n.endswith(("mpjve", "acceleration"))}
    shares = {n: v for n, v in scores.items() if n in ("pck", "auc")}
    bins = {n: v for n, v in scores.items() if n.startswith("bin_")}  # of a stage 1 trained along
    others = {n: v for n, v in scores.items() if n not in {**motion, **shares, **bins}}
    panels = [("test: mm" if motion else "test", others)]
    if motion:
        panels.append(("test: mm/frame, mm/frame²", motion))
    if shares:
        panels.append(("test: %", shares))
    if bins:
        panels.append(("test: stage 1", bins))
    return panels
