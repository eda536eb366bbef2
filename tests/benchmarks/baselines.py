"""What a data set's numbers are worth: two baselines on the same test clips as the model.

    python -m tests.benchmarks.baselines --config configs/mocap/tiny.yaml [--report FILE.json]

The mean training pose, and linear least squares from the 2D clip to the 3D clip, both in the
units the model predicts in and scored by the same protocol.
"""

import numpy as np

from data.benchmarks import find_benchmark
from data.clips import ClipDataset
from lib.cli import CommandParser, run_main
from lib.config import load_config
from lib.files import find_path, refuse_same_file, write_json
from lib.skeleton import H36M

CHUNK = 2048  # clips at a time: the normal equations need no more in memory


def read(dataset: ClipDataset, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Chunks of flattened inputs with a constant column (N, D + 1), and root-relative labels."""
    batch = dataset.__getitems__(list(range(start, min(start + CHUNK, len(dataset)))))
    inputs = batch.pose_2d.flatten(1).double().numpy()
    labels = (batch.pose_3d - batch.pose_3d[..., :1, :]).flatten(1).double().numpy()
    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1), labels


def fit(dataset: ClipDataset) -> tuple[np.ndarray, np.ndarray]:
    """The mean pose (J, 3) and the least-squares weights (D + 1, T·J·3) of the training clips."""
    xx = xy = total = 0
    for start in range(0, len(dataset), CHUNK):
        inputs, labels = read(dataset, start)
        xx, xy = xx + inputs.T @ inputs, xy + inputs.T @ labels
        total = total + labels.reshape(-1, H36M.num_joints, 3).sum(0)
    n_frames = dataset.source.n_frames
    return total / (len(dataset) * n_frames), np.linalg.lstsq(xx, xy, rcond=1e-12)[0]


def main() -> None:
    parser = CommandParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--report", metavar="FILE.json")
    options = parser.parse_args()
    config = load_config(options.config, options.set)
    benchmark = find_benchmark(config.dataset)
    config = benchmark.complete(config)
    if options.report:
        refuse_same_file(options.report, [options.config, *config.clips_dirs])
    train, test = (benchmark.open(config, split) for split in ("train", "test"))
    clips, frames = benchmark.test_frames(test.source, find_path(config.data_root) / config.dt_file)
    mean, weights = fit(train)
    linear = [read(test, start)[0] @ weights for start in range(0, len(test), CHUNK)]
    shape = (len(test), config.n_frames, H36M.num_joints, 3)
    predictions = {
        "mean training pose": np.broadcast_to(mean, shape),
        "linear least squares": np.concatenate(linear).reshape(shape),
    }
    score = benchmark.protocols[0].evaluate
    reports = {n: score(p, clips, frames, H36M) for n, p in predictions.items()}
    columns = next(iter(reports.values())).scores()
    print(f"{'baseline':<22}" + "".join(f"{name:>14}" for name in columns))
    for name, report in reports.items():
        print(f"{name:<22}" + "".join(f"{score:14.2f}" for score in report.scores().values()))
    if options.report:
        write_json(options.report, {n: r.as_dict() for n, r in reports.items()})


if __name__ == "__main__":
    run_main(main)
