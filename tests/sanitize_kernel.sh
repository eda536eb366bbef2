#!/bin/sh
# The kernel's tests with the C code built under AddressSanitizer and UndefinedBehaviorSanitizer.
# Any report ends the run with an error. Usage: tests/sanitize_kernel.sh [python]
set -eu
cd "$(dirname "$0")/.."
python=${1:-python}
compiler=${CC:-cc}
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT

# Python itself is not built with the sanitizers, so their runtimes are loaded before it; its
# leaks at exit, and addresses that it hands out twice, are not the kernel's.
export LD_PRELOAD="$($compiler -print-file-name=libasan.so) $($compiler -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:allocator_may_return_null=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export MDTF_KERNEL_CFLAGS="-O1 -g -DUNROLL= -fsanitize=address,undefined -fno-sanitize-recover=all"
export XDG_CACHE_HOME="$cache" OMP_NUM_THREADS=2
# Build it now: tests that find no kernel would skip, and prove nothing.
"$python" -c "import sys; from model.ops.cpu.backend import unavailable; sys.exit(unavailable())"
# Not the tests of the build: they start processes of their own, with compilers of their own.
"$python" -m pytest -q -p no:cacheprovider tests/test_kernel.py tests/test_train_block.py tests/test_scan_model.py tests/test_nan.py -k "not compil and not building \
and not cache and not folder and not forked and not export"
