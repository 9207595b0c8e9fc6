#!/usr/bin/env bash
# Measure one GPU in at most 8 minutes, without a network; write OUT/table.md.
#   benchmarks/gpu/run.sh [--dry] [--out DIR] [--seconds N] [--parts device,correctness,...]
# --dry: tiny sizes on the CPU, a fake in place of CUDA graphs. PYTHON names the interpreter.
# Ends with 1 if a row has failed.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$root/benchmarks:$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-/tmp/chexseg-inductor}"
exec "${PYTHON:-python3}" -m gpu.driver "$@"
