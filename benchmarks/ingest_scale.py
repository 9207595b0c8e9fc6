"""Benchmark ingest as the data set and the cluster grow: rate, memory and spilled objects.

    python benchmarks/ingest_scale.py [--images N ...] [--nodes N ...] [--size PX]

The rate is in images per second. Memory is that of the largest worker and of the driver. The set is
a training split with hard links to 48 phantom radiographs, each of which is read, decoded and
written anew.

Nodes are emulated on this machine, each with two CPUs and a small object store. One CPU of the
cluster is left to Ray Data as in a study. With more nodes than cores, the result is a node's cost,
not its gain. The rate is that of the stage after its workers have started. Each row has a separate
process.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import bare
from ingest import write_films

from chexseg.run import local_ray
from chexseg.stages import ingest
from chexseg.stages.api import StageContext
from chexseg.stages.configs import IngestConfig

STORE = 80 * 2**20
COLUMNS = (
    "workers",
    "pixels, MiB",
    "seconds",
    "images a second",
    "largest worker, MiB",
    "driver, MiB",
    "on disk, MiB",
    "nodes that spilled",
)


@contextmanager
def cluster(nodes: int, scratch: Path) -> Iterator[None]:
    """Run a Ray of several nodes on this machine."""
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": local_ray.new_token(),
    }  # before Ray is imported
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": STORE}
    nodes_cluster = Cluster(
        initialize_head=True,
        head_node_args={**node, "temp_dir": str(scratch / "ray"), "include_dashboard": False},
    )
    for _ in range(nodes - 1):
        nodes_cluster.add_node(**node)
    ray.init(address=nodes_cluster.address, log_to_driver=False, logging_level="error")
    try:
        yield
    finally:
        ray.shutdown()
        nodes_cluster.shutdown()


def spilling(scratch: Path) -> dict[Path, int]:
    """Return when each node last wrote or deleted a file among its spilled objects."""
    return {
        path: path.stat().st_mtime_ns
        for path in (scratch / "ray").glob("session_*/ray_spilled_objects*")
    }


def measure(images: int, nodes: int, size: int, scratch: Path) -> tuple[float, ...]:
    root, out, workers = scratch / "data", scratch / "shards", 2 * nodes - 1
    write_films(root, images)
    with cluster(nodes, scratch), bare.Peak(bare.largest_worker) as peak:
        before, watch, started = spilling(scratch), bare.LossMonitor(), perf_counter()
        context = StageContext(decode_workers=workers, progress=watch)
        ingest.run(IngestConfig(split="train", size=size), {"data": root}, out, context)
        seconds, spilled = perf_counter() - started, spilling(scratch) != before
    driver = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    written = sum(path.stat().st_size for path in out.rglob("*.parquet"))
    in_mib = [count / 2**20 for count in (peak.value, driver, written)]
    return workers, images * size * size / 2**20, seconds, watch.rate(workers), *in_mib, spilled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=int, nargs="+", default=[4096, 16384], help="(default: 4096 16384)"
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 3], help="(default: 1 2 3)")
    parser.add_argument(
        "--size", type=int, default=320, help="pixels of the square images' side (default: 320)"
    )
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        with tempfile.TemporaryDirectory(prefix="cxb-", dir="/tmp") as scratch:
            row = measure(given.images[0], given.nodes[0], given.size, Path(scratch))
        values = (f"{value:>{len(name) + 2}.0f}" for name, value in zip(COLUMNS, row, strict=True))
        print(f"{given.images[0]:>8,}{given.nodes[0]:>7}" + "".join(values), flush=True)
        return
    print(
        f"{'images':>8}{'nodes':>7}" + "".join(f"{name:>{len(name) + 2}}" for name in COLUMNS),
        flush=True,
    )
    for images in given.images:
        for nodes in given.nodes:
            one = ["--images", str(images), "--nodes", str(nodes), "--size", str(given.size)]
            subprocess.run([sys.executable, __file__, "--alone", *one], check=True)


if __name__ == "__main__":
    main()
