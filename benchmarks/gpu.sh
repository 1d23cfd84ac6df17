#!/bin/sh
# Check this machine's GPU. Wheels in the folder `wheels`, if there is one, are installed first, without a network.
#
#     benchmarks/gpu.sh [options of `python -m benchmarks.gpu`]
#
# PYTHON names an interpreter with torch for CUDA; its own packages stay as they are.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
if [ -d wheels ]; then
    "$PYTHON" -m pip install --quiet --no-index --find-links wheels --no-deps --upgrade --target build/gpu_packages \
        -r benchmarks/gpu_wheels.txt
    PYTHONPATH=$PWD/build/gpu_packages${PYTHONPATH:+:$PYTHONPATH}
    export PYTHONPATH
fi
exec "$PYTHON" -m benchmarks.gpu "$@"
