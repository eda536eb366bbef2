"""MDTF and simple methods on the same clips, after the same CPU time (docs/benchmark.md).

    python -m tests.benchmarks.baselines --data-root data/motion3d --cpu-seconds 1200 [--final]

The mean pose, linear least squares from the 2D clip to the 3D clip, a residual MLP on single
frames, a dilated TCN of MDTF Tiny's size, all person-scaled and residual, and MDTF by the config,
its stage 1 included. All are averaged with the mirrored clip's prediction, and scored on the
validation clips; on the test sets, too, only with --final.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from data.benchmark import Benchmark
from data.benchmarks import benchmark_of, find_benchmark
from data.loader import ClipLoader
from data.mocap_benchmark import HELD_OUT, VALIDATION
from data.preprocess.mocap_benchmark import folder_of
from lib.batch import Batch
from lib.cli import CommandParser, log_to_stdout, logger, run_main
from lib.config import RENDERING_KEYS, Config, load_config, make_config
from lib.errors import UserError
from lib.evaluation.predict import predict_test
from lib.evaluation.report import Report
from lib.files import refuse_same_file, write_json
from lib.numbers import whole_number
from lib.random_state import seed_everything
from tests.benchmarks.budget import TimedFit, make_fit, save_weights, step_costs
from tests.benchmarks.rivals import (
    DilatedTCN,
    FrameMLP,
    LeastSquares,
    MeanPose,
    Scaled,
    Trained,
    count_parameters,
    single_frames,
    train,
    widest,
)
from tests.benchmarks.timing import machine

PARAMETERS = 933_795  # of MDTF Tiny with stage 1
MLP_WIDTH, FRAMES = 384, 256  # frames of a batch
CLIPS, POOL = 16, 128  # clips of a batch; clips whose frames are mixed
STAGE1, STAGE1_SHARE = "configs/mocap/first.yaml", 0.3  # its recipe; its share of the CPU time
# What both stages of MDTF agree on.
SHARED_KEYS = (
    "dataset", "data_root", "subset_list", "dt_file", "protocol", "joints", "joint_parents",
    "use_proj_as_2d", "n_frames", "bins", *RENDERING_KEYS,
)  # fmt: skip


class Views:
    """The training clips, epoch after epoch, plain or mirrored as MDTF gets them."""

    def __init__(self, benchmark: Benchmark, config: Config, seed: int) -> None:
        self.dataset, self.config = benchmark.open_training(config), config
        self.skeleton, self.seed = benchmark.skeleton, seed

    def _loader(self, batch_size: int) -> ClipLoader:
        return ClipLoader(
            self.dataset, batch_size, skeleton=self.skeleton, seed=self.seed, flip=True
        )

    def batches(self, batch_size: int) -> Iterator[Batch]:
        loader = self._loader(batch_size)
        for epoch in itertools.count():
            yield from loader.batches(epoch)

    def one_epoch(self) -> Iterator[Batch]:
        yield from self._loader(POOL).batches(0)


Method = Callable[[Views, float], tuple[nn.Module, Trained | None]]


def mean_pose(views: Views, cpu_seconds: float) -> tuple[nn.Module, None]:
    model = MeanPose(views.skeleton)
    model.fit(views.one_epoch())
    return model, None


def least_squares(views: Views, cpu_seconds: float) -> tuple[nn.Module, None]:
    linear = LeastSquares(views.skeleton, views.config.n_frames)
    model = Scaled(linear, views.skeleton)
    linear.fit(model.task(batch) for batch in views.one_epoch())
    return model, None


def frame_mlp(views: Views, cpu_seconds: float) -> tuple[nn.Module, Trained]:
    model = Scaled(FrameMLP(views.skeleton, MLP_WIDTH), views.skeleton)
    generator = torch.Generator().manual_seed(views.seed)
    pairs = (model.task(batch) for batch in views.batches(POOL))
    frames = single_frames(pairs, FRAMES, generator)
    return model, train(model.inner, frames, cpu_seconds)


def dilated_tcn(views: Views, cpu_seconds: float) -> tuple[nn.Module, Trained]:
    skeleton, n_frames = views.skeleton, views.config.n_frames
    width = widest(lambda w: DilatedTCN(skeleton, n_frames, w), PARAMETERS)
    model = Scaled(DilatedTCN(skeleton, n_frames, width), skeleton)
    pairs = (model.task(batch) for batch in views.batches(CLIPS))
    return model, train(model.inner, pairs, cpu_seconds)


def mdtf(views: Views, cpu_seconds: float) -> tuple[nn.Module, Trained]:
    """Both stages, by the project's own steps and the config's recipe."""
    config, seed, fits = replace(views.config, epochs=1), views.seed, []
    stage1, left = None, cpu_seconds
    with TemporaryDirectory() as folder:
        if config.bone_branch:
            stage1 = Path(folder) / "stage1.pth.tr"
            fits.append(train_mdtf(stage1_config(config), STAGE1_SHARE * cpu_seconds, seed))
            save_weights(fits[0], stage1)
            left -= fits[0].cpu_seconds
        fits.append(train_mdtf(config, left, seed, stage1))
    steps = sum(len(fit.loader) for fit in fits)
    return fits[-1].stage.model, Trained(steps, sum(fit.cpu_seconds for fit in fits))


def stage1_config(config: Config) -> Config:
    """The stage 1 for a stage 2."""
    shared = {key: value for key, value in config.as_dict().items() if key in SHARED_KEYS}
    values = {**load_config(STAGE1).as_dict(), **shared, "epochs": 1}
    return make_config(values, f"{STAGE1} for this stage 2")


def train_mdtf(
    config: Config, cpu_seconds: float, seed: int, stage1: Path | None = None
) -> TimedFit:
    """As many steps as the CPU time allows by the cost of one, so that the schedule knows its end.

    stage1: a checkpoint, for stage 2.
    """

    def fresh(steps: int) -> TimedFit:
        return make_fit(config, Path(), steps, seed, stage1=stage1, silent=True)

    cost = step_costs({"": fresh(10**6)})[""]
    fit = fresh(max(1, round(cpu_seconds / cost)))
    fit.train()
    return fit


METHODS: dict[str, Method] = {
    "mean pose": mean_pose,
    "linear least squares": least_squares,
    "residual MLP, single frames": frame_mlp,
    "dilated TCN": dilated_tcn,
    "MDTF": mdtf,
}


def test_sets(config: Config, *, final: bool) -> list[str]:
    """The folders that are scored: the validation clips', with `final` the test sets', too.

    Raises UserError: this data set has no test sets of its own.
    """
    if config.dataset == "mocap":
        return [
            folder_of(name, is_exact, config.n_frames)
            for name in HELD_OUT
            if final or name == VALIDATION
            for is_exact in (False, True)
        ]
    if final:
        raise UserError(f"--final: {config.dataset} has one test split; leave it out")
    return [config.subset_list[0]]


def score(model: nn.Module, benchmark: Benchmark, config: Config) -> Report:
    """On the test clips of the config's first folder, by the config's first protocol."""
    test = benchmark.test_sets(config)[0]
    poses = predict_test(
        model.eval(),
        test,
        range(len(test.clips)),
        benchmark.skeleton,
        flip=True,
        batch_size=POOL,
        device="cpu",
    )
    return test.evaluate(poses, benchmark.skeleton, root_rel=True)


def table(reports: dict[str, dict[str, Report]]) -> str:
    """reports: set -> method -> report."""
    lines = []
    for name, methods in reports.items():
        columns = next(iter(methods.values())).scores()
        lines += ["", f"{name:<28}" + "".join(f"{column:>14}" for column in columns)]
        for method, report in methods.items():
            scores = report.scores()
            lines.append(f"{method:<28}" + "".join(f"{scores[c]:14.2f}" for c in columns))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--config", default="configs/mocap/tiny.yaml", metavar="FILE", help="(%(default)s)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key")
    add("--data-root", metavar="DIR", help="folder of the sets (the config's)")
    add("--cpu-seconds", type=whole_number(1), default=120, help="of training steps (120)")
    add("--final", action="store_true", help="score the test sets, too: once, when all is chosen")
    add(
        "--methods",
        nargs="+",
        default=list(METHODS),
        choices=METHODS,
        metavar="NAME",
        help=f"(all: {', '.join(METHODS)})",
    )
    add("--seed", type=whole_number(), default=0)
    add("--report", metavar="FILE.json", help="also write all numbers there")
    options = parser.parse_args(argv)
    root = [f"data_root={options.data_root}"] if options.data_root else []
    config = load_config(options.config, [*options.set, *root], stage=2)
    config = find_benchmark(config.dataset).complete(config)
    benchmark = benchmark_of(config)
    if not benchmark.projects:
        raise UserError(f"{config.dataset}: its labels are no projections, as these methods need")
    names = test_sets(config, final=options.final)
    if options.report:
        refuse_same_file(options.report, [options.config, *config.clips_dirs])
    log_to_stdout()
    torch.set_num_threads(1)  # CPU time is then time at work, not spent waiting for others
    configs = {name: replace(config, subset_list=(name,)) for name in names}
    for one in configs.values():
        benchmark.test_sets(one)  # a missing set is told before the training
    views = Views(benchmark, config, options.seed)
    reports: dict[str, dict[str, Report]] = {name: {} for name in names}
    trainings: dict[str, dict[str, object]] = {}
    for method in options.methods:
        seed_everything(options.seed)
        model, trained = METHODS[method](views, options.cpu_seconds)
        about = {"parameters": count_parameters(model), **(vars(trained) if trained else {})}
        trainings[method] = about
        for name in names:
            reports[name][method] = score(model, benchmark, configs[name])
        errors = ", ".join(f"{n} {reports[n][method].scores()['mpjpe']:.1f} mm" for n in names)
        logger.info(
            "%s: %s; %s", method, errors, ", ".join(f"{k} {v:,.0f}" for k, v in about.items())
        )
    print(table(reports))
    if options.report:
        scores = {n: {m: r.as_dict() for m, r in by.items()} for n, by in reports.items()}
        about_run = {"cpu_seconds": options.cpu_seconds, "seed": options.seed}
        write_json(
            options.report,
            {"machine": machine(), **about_run, "trainings": trainings, "sets": scores},
        )
    return 0


if __name__ == "__main__":
    run_main(main)
