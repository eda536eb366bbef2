"""Triton's kernels compiled ahead of time for devices that need not be there, and what they need.

    python -m tests.triton_compiled [cuda:90 cuda:80 hip:gfx942 …]

What is compiled is what a launch would compile: the launches are recorded, not made.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from model.ops.check import draw_weights
from model.ops.triton import conv, inner, scan
from model.ops.weights import DirectionWeights, Sizes

KERNELS = {
    conv: ("conv_silu", "conv_silu_backward"),
    scan: ("scan_forward", "scan_backward"),
}
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class Launch(NamedTuple):
    """A kernel and what it was launched with."""

    kernel: Any
    arguments: tuple[Any, ...]
    constants: dict[str, int]


@contextmanager
def recorded_launches() -> Iterator[dict[str, Launch]]:
    """Inside, launches do nothing but add themselves here, by the kernel's name."""
    launches: dict[str, Launch] = {}

    class Recorder:
        def __init__(self, name: str, kernel: Any) -> None:
            self.name, self.kernel = name, kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            def launch(*arguments: Any, **constants: int) -> None:
                launches[self.name] = Launch(self.kernel, arguments, constants)

            return launch

    originals = {
        (module, name): getattr(module, name) for module, names in KERNELS.items() for name in names
    }
    try:
        for (module, name), kernel in originals.items():
            setattr(module, name, Recorder(name, kernel))
        yield launches
    finally:
        for (module, name), kernel in originals.items():
            setattr(module, name, kernel)


def launches_of(
    length: int, channels: int, dtype: torch.dtype = torch.float32, states: int = 16
) -> dict[str, Launch]:
    """What a training step of Tiny (64 channels) or Large (128) launches, by the kernel's name."""
    sizes = Sizes(channels, states, rank=-(-channels // 16), taps=4)
    weights = draw_weights(DirectionWeights, sizes, torch.Generator().manual_seed(0))
    leaves = [w.float().requires_grad_() for _ in range(2) for w in weights.values()]
    x = torch.zeros(2, 3, length, channels, dtype=dtype, requires_grad=True)
    count = len(weights)
    with recorded_launches() as launches:
        directions = (DirectionWeights(*part) for part in (leaves[:count], leaves[count:]))
        inner.inner(x, x, x, *directions).sum().backward()
    return launches


def compile_launch(launch: Launch, target: str) -> Any:
    """The compiled kernel; target: "cuda:90" for sm_90, "hip:gfx942"."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names, params = launch.kernel.arg_names, launch.kernel.params
    options = {k: v for k, v in launch.constants.items() if k.startswith("num_")}
    constants = {k: v for k, v in launch.constants.items() if k not in options}
    signature, attributes = dict.fromkeys(names, "constexpr"), {}
    for at, value in enumerate(launch.arguments):
        name, is_free = names[at], params[at].do_not_specialize
        if isinstance(value, torch.Tensor):
            signature[name] = f"*{TYPES[value.dtype]}"
        elif value == 1 and not is_free:
            constants[name] = value
            continue
        else:
            signature[name] = "i32" if abs(value) < 2**31 else "i64"
        if isinstance(value, torch.Tensor) or (value % 16 == 0 and not is_free):
            attributes[(at,)] = [["tt.divisibility", 16]]
    backend, _, arch = target.partition(":")
    gpu = GPUTarget(backend, int(arch) if arch.isdigit() else arch, 32 if backend == "cuda" else 64)
    source = ASTSource(
        fn=launch.kernel, signature=signature, constexprs=constants, attrs=attributes
    )
    return triton.compile(source, target=gpu, options=options)


def resources(compiled: Any) -> dict[str, int]:
    """Registers, stack bytes (spills) and shared memory of a kernel compiled for CUDA."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(tool), "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r"(REG|STACK|SHARED):(\d+)", text)}


def main() -> None:
    for target in sys.argv[1:] or ("cuda:80", "cuda:90", "cuda:120"):
        for channels in (64, 128):
            for length in (17, 27):
                for dtype in (torch.float32, torch.bfloat16):
                    for name, launch in launches_of(length, channels, dtype).items():
                        start = time.perf_counter()
                        compiled = compile_launch(launch, target)
                        seconds = time.perf_counter() - start
                        found = resources(compiled) if target.startswith("cuda") else "compiled"
                        print(target, name, f"C {channels} L {length}", dtype, found,
                              f"{seconds:.1f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
