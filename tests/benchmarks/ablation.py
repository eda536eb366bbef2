"""What each part of the method and of the recipe is worth, at equal CPU time, with error bars.

    python -m tests.benchmarks.ablation --data-root data/motion3d --out ablation [--seconds 60]

Trains every variant (tests/benchmarks/variants.py) on the training clips of the motion capture
benchmark and scores it on a part of the validation clips, never on the test sets. Variants are
compared with the base of the same seed, which has seen the same clips first.

CPU seconds become steps: the cost of a step is measured once for all variants, in turns, and kept.
So a run's result does not depend on how busy the machine is, and can be repeated. Stage 1 is
trained once for each seed and number of bins, and used by all variants that have it.

--out gets results.jsonl (a line for each finished run; a second call runs only what is missing),
table.md and plot.svg.
"""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib import memory
from lib.checkpoint import BEST
from lib.cli import CommandParser, log_to_stdout, logger, run_main
from lib.config import Config
from lib.errors import UserError
from lib.files import copy_atomic, write_atomic
from lib.locks import try_lock
from lib.numbers import whole_number
from lib.training.signals import Interrupted
from tests.benchmarks.budget import EVERY, make_fit, save_weights, scores, step_costs
from tests.benchmarks.variants import (
    BASE,
    VARIANTS,
    Variant,
    find_variants,
    stage1_config,
    stage2_config,
)

RESULTS, TABLE, PLOT, RUNNING = "results.jsonl", "table.md", "plot.svg", "running"
Line = dict[str, Any]


class Results:
    """The lines of results.jsonl. A line is whole or not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            self.lines: list[Line] = [json.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); give another --out") from error

    def find(self, key: Line, config: Config | None = None) -> Line | None:
        """The line that agrees with `key`. Raises UserError: it is of another config."""
        for line in self.lines:
            if all(line.get(name) == value for name, value in key.items()):
                self._check(line, config)
                return line
        return None

    def _check(self, line: Line, config: Config | None) -> None:
        if config is None or line["config"] == settings(config):
            return
        now = settings(config)
        differing = sorted(
            k for k in {*now, *line["config"]} if now.get(k) != line["config"].get(k)
        )
        raise UserError(
            f"{self.path}: {line['variant']} was run with another {', '.join(differing)}; give"
            " another --out, or the same settings"
        )

    def add(self, line: Line) -> None:
        self.lines.append(line)
        with write_atomic(self.path, "w") as file:
            file.writelines(json.dumps(each) + "\n" for each in self.lines)


def settings(config: Config) -> dict[str, Any]:
    """What decides a run's result, as JSON gives it back."""
    values = {key: value for key, value in config.as_dict().items() if key != "data_root"}
    return dict(json.loads(json.dumps(values)))


@dataclass(frozen=True)
class Ablation:
    """What is asked for. overrides: key=value, of the base of both stages."""

    out: Path
    variants: list[Variant]
    seeds: int
    seconds: int
    stage1_seconds: int
    overrides: list[str]
    results: Results

    def __call__(self) -> None:
        """All runs that are missing, seed after seed. Raises Interrupted."""
        self._measure_costs()
        for seed in range(self.seeds):
            for variant in self.variants:
                if self.results.find(self._key(variant, seed), self._stage2(variant)) is None:
                    self._run(variant, seed)
                    self.report()

    def report(self) -> str:
        """Write table and plot of the runs of this budget; returns the table."""
        keys = {name: value for name, value in self._key(BASE, 0).items() if name != "variant"}
        del keys["seed"]
        runs = [
            line
            for line in self.results.lines
            if all(line.get(name) == value for name, value in keys.items())
            and line["variant"] in {variant.name for variant in self.variants}
        ]
        rows = compare(runs)
        text = markdown(rows, self.seconds, self.stage1_seconds)
        with write_atomic(self.out / TABLE, "w") as file:
            file.write(text + "\n")
        draw(self.out / PLOT, rows)
        return text

    def _key(self, variant: Variant, seed: int) -> Line:
        about = {"kind": "run", "variant": variant.name, "seed": seed}
        return about | {"seconds": self.seconds, "stage1_seconds": self.stage1_seconds}

    def _stage2(self, variant: Variant) -> Config:
        return stage2_config(variant, self.overrides)

    def _stage1(self, variant: Variant) -> Config:
        return stage1_config(variant, self.overrides)

    # --- What a step costs --------------------------------------------------------------------

    def _measure_costs(self) -> None:
        """Of the variants, and the stages 1, for which it is not known yet."""
        stages1 = {stage1_name(v): self._stage1(v) for v in self.variants}
        self._measure({n: (c, BASE) for n, c in stages1.items()}, stage1_name(BASE))
        self._measure({v.name: (self._stage2(v), v) for v in self.variants}, BASE.name)

    def _measure(self, wanted: dict[str, tuple[Config, Variant]], base: str) -> None:
        missing = {
            name: value
            for name, value in wanted.items()
            if self._known_cost(name, value[0]) is None
        }
        if not missing:
            return
        known = self._known_cost(base, wanted[base][0])
        logger.info("measuring the steps of %s", ", ".join(missing))
        fits = {}
        for name, (config, variant) in {base: wanted[base], **missing}.items():
            stage1 = None
            if config.stage == 2 and config.bone_branch:
                stage1 = self._fresh_stage1(variant)
            fits[name] = make_fit(
                config, self.out, 10**6, 0, stage1=stage1, true_bins=variant.true_bins, silent=True
            )
        costs = step_costs(fits)
        # Later measurements in the unit of the first: the machine may be slower now.
        scale = known / costs[base] if known else 1.0
        for name, (config, _) in missing.items():
            line = {"kind": "cost", "variant": name, "cpu_seconds_per_step": scale * costs[name]}
            self.results.add({**line, "config": settings(config)})

    def _known_cost(self, name: str, config: Config) -> float | None:
        line = self.results.find({"kind": "cost", "variant": name}, config)
        return None if line is None else float(line["cpu_seconds_per_step"])

    def _steps(self, name: str, config: Config, seconds: int) -> int:
        cost = self._known_cost(name, config)
        assert cost is not None
        return max(1, round(seconds / cost))

    # --- Runs ---------------------------------------------------------------------------------

    def _run(self, variant: Variant, seed: int) -> None:
        config = self._stage2(variant)
        stage1 = self._trained_stage1(variant, seed) if config.bone_branch else None
        steps = self._steps(variant.name, config, self.seconds)
        logger.info("%s, seed %d: %d steps", variant.name, seed, steps)
        line = self._key(variant, seed)
        line |= self._train(config, steps, seed, stage1=stage1, true_bins=variant.true_bins)
        self.results.add({**line, "config": settings(config)})
        logger.info("%s, seed %d: MPJPE %.1f mm", variant.name, seed, line["scores"]["mpjpe"])

    def _trained_stage1(self, variant: Variant, seed: int) -> Path:
        """Its weights, trained now if they are not there."""
        config, name = self._stage1(variant), stage1_name(variant)
        file = self.out / f"stage1-{variant.bins}-{seed}-{self.stage1_seconds}.pth.tr"
        key = {"kind": "stage1", "variant": name, "seed": seed, "seconds": self.stage1_seconds}
        if self.results.find(key, config) is None or not file.exists():
            steps = self._steps(name, config, self.stage1_seconds)
            logger.info("%s, seed %d: %d steps", name, seed, steps)
            line = {**key, **self._train(config, steps, seed, keep=file)}
            self.results.add({**line, "config": settings(config)})
            logger.info("%s, seed %d: accuracy %.3f", name, seed, line["scores"]["accuracy"])
        return file

    def _train(
        self,
        config: Config,
        steps: int,
        seed: int,
        *,
        stage1: Path | None = None,
        true_bins: bool = False,
        keep: Path | None = None,
    ) -> Line:
        """Train and score. keep: where the weights go; nothing else stays of the run's folder."""
        folder = self.out / RUNNING
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        fit = make_fit(config, folder, steps, seed, stage1=stage1, true_bins=true_bins)
        with closing(fit.run):
            fit()
        if keep is not None:
            copy_atomic(folder / BEST, keep)
        shutil.rmtree(folder, ignore_errors=True)
        return {"steps": steps, "cpu_seconds": fit.cpu_seconds, "scores": scores(fit)}

    def _fresh_stage1(self, variant: Variant) -> Path:
        file = self.out / f"stage1-{variant.bins}-untrained.pth.tr"
        save_weights(make_fit(self._stage1(variant), self.out, 1, 0, silent=True), file)
        return file


def stage1_name(variant: Variant) -> str:
    return f"stage 1 of {variant.bins} bins"


# --- Tables -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A variant's scores, and its differences to the base with the same seed; all in mm."""

    name: str
    steps: int
    mpjpe: list[float]
    differences: list[float]

    @property
    def difference(self) -> float:
        return float(np.mean(self.differences))

    @property
    def error(self) -> float:
        """Standard error of the mean difference; nan for fewer than two seeds."""
        return standard_error(self.differences)


def standard_error(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def compare(runs: Sequence[Line]) -> list[Row]:
    """A row for each variant, the base first, then the best ones first."""
    by_variant: dict[str, dict[int, Line]] = {}
    for run in runs:
        by_variant.setdefault(run["variant"], {})[run["seed"]] = run
    base = {seed: run["scores"]["mpjpe"] for seed, run in by_variant.get(BASE.name, {}).items()}
    rows = []
    for name, found in by_variant.items():
        shared = sorted(found.keys() & base.keys())
        if shared:
            mpjpe = [found[seed]["scores"]["mpjpe"] for seed in shared]
            pairs = zip(shared, mpjpe, strict=True)
            differences = [value - base[seed] for seed, value in pairs]
            rows.append(Row(name, found[shared[0]]["steps"], mpjpe, differences))
    return sorted(rows, key=lambda row: (row.name != BASE.name, row.difference))


def with_error(value: float, error: float, sign: str = "") -> str:
    return f"{value:{sign}.1f}" + ("" if math.isnan(error) else f" ± {error:.1f}")


def markdown(rows: Sequence[Row], seconds: int, stage1_seconds: int) -> str:
    """The table, with what it is of below."""
    lines = ["| variant | steps | MPJPE | difference | seeds |", "|---|---|---|---|---|"]
    for row in rows:
        mean = with_error(float(np.mean(row.mpjpe)), standard_error(row.mpjpe))
        is_base = row.name == BASE.name
        difference = "–" if is_base else with_error(row.difference, row.error, "+")
        lines.append(f"| {row.name} | {row.steps:,} | {mean} | {difference} | {len(row.mpjpe)} |")
    lines += [
        "",
        f"MPJPE in mm on one in {EVERY} validation clips after {seconds} CPU-seconds of steps"
        f" (stage 1: {stage1_seconds}); ± standard error over the seeds. Differences are to the"
        " base with the same seed.",
    ]
    return "\n".join(lines)


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Differences to the base with their standard errors, and the single seeds as dots."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.name != BASE.name][::-1]  # the best one at the top
    figure = Figure(figsize=(7, 1.2 + 0.28 * len(shown)), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for place, row in enumerate(shown):
        axes.plot(row.differences, [place] * len(row.differences), ".", color="#9fb6cd")
        error = None if math.isnan(row.error) else row.error
        axes.errorbar(row.difference, place, xerr=error, fmt="o", color="#2e86de", capsize=3)
    axes.axvline(0, color="#505864", linewidth=1)
    axes.set_yticks(range(len(shown)), [row.name for row in shown])
    axes.set_xlabel("MPJPE against the base with the same seed, mm (left is better)")
    axes.grid(axis="x", alpha=0.3)
    # Text stays text, and the same rows give the same file.
    text = matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name})
    with text, write_atomic(path) as file:
        figure.savefig(file, format="svg", metadata={"Date": None})


# --- The command ------------------------------------------------------------------------------


@contextmanager
def held(out: Path) -> Iterator[None]:
    """The folder, for one process at a time. Raises UserError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = try_lock(out / ".lock")
    except OSError as error:
        raise UserError(f"cannot write into {out}: {error.strerror or error}") from error
    if lock is None:
        raise UserError(f"{out}: another ablation is running there; wait, or give another --out")
    with lock:
        yield


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--data-root", default="data/motion3d", metavar="DIR", help="folder of the sets")
    add("--out", type=Path, default=Path("ablation"), metavar="DIR", help="(%(default)s)")
    add("--seconds", type=whole_number(1), default=60, help="CPU seconds of each run (60)")
    add(
        "--stage1-seconds",
        type=whole_number(1),
        default=240,
        help="CPU seconds of each stage 1 (240)",
    )
    add("--seeds", type=whole_number(1), default=3, help="runs of each variant (3)")
    add("--variants", nargs="+", default=[], metavar="NAME", help=f"(all: {', '.join(VARIANTS)})")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of all")
    options = parser.parse_args(argv)
    overrides = [*options.set, f"data_root={options.data_root}"]
    variants = find_variants(options.variants)
    log_to_stdout()
    torch.set_num_threads(1)
    memory.keep_freed()
    with held(options.out):
        ablation = Ablation(
            options.out,
            variants,
            options.seeds,
            options.seconds,
            options.stage1_seconds,
            overrides,
            Results(options.out / RESULTS),
        )
        try:
            ablation()
        except Interrupted as stop:
            return stop.exit_status
        print(ablation.report())
    return 0


if __name__ == "__main__":
    run_main(main)
