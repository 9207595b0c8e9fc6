"""Benchmark checking everything that is read against its manifest.

    python benchmarks/verification.py [--images N] [--size PX] [--results N]

Three parts are each compared with the same work without checks, in turns in one process. Streaming
the pixels of an ingested split: the reference opens the same files by pyarrow alone. Loading a
segmenter's weights: by safetensors alone. Looking up finished results, as `study status` does:
listing the same files and parsing their manifests as JSON. "first" is a process's first read of a
file, which hashes it; "later" is any other.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import bare
import pyarrow.parquet as pq
from safetensors.torch import load_file

from chexseg.config import study_file
from chexseg.data import shards
from chexseg.models import encoders, segmenter
from chexseg.plan import planner
from chexseg.plan.graph import Node
from chexseg.store import manifest
from chexseg.store.store import Store

STUDY = "name: many\naxes: {{trial: {trials}}}\nsettings: {{encoder: {{init: random}}}}\n"


def commit(store: Store, node: Node, write: Callable[[Path], None]) -> Path:
    with store.working_on(node) as partial:
        partial.mkdir(parents=True)
        write(partial)
        return store.commit(node, partial, {"selection_miou": 0.5}, 1.0).path


def timed(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def compare(
    unit: str,
    amount: int,
    bare_work: Callable[[], object],
    checked: Callable[[], object],
    rounds: int,
) -> None:
    bare_work()  # both sides read from the page cache
    first, later, reference = [], [], []
    for _ in range(rounds):
        manifest._check_digest.cache_clear()
        first.append(timed(checked))
        reference.append(timed(bare_work))
        later.append(timed(checked))
    for name, times in (("without checks", reference), ("first", first), ("later", later)):
        seconds = median(times)
        print(
            f"  {name:<15} {seconds:8.3f} s  {amount / seconds:10.0f} {unit}/s  "
            f"{seconds / median(reference):6.3f}"
        )


def stream(paths: list[str]) -> None:
    for path in paths:
        for _ in shards.row_groups(path, ["image_id", "pixels"]):
            pass


def bare_stream(paths: list[str]) -> None:
    for path in paths:
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                file.read_row_group(number, ["image_id", "pixels"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--results", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "store")
        planned = planner.plan(
            study_file.parse(STUDY.format(trials=list(range(arguments.results // 2))), "many.yaml"),
            {"train": "a", "valid": "b", "test": "c"},
        )
        nodes = list(planned.nodes.values())
        ingested = next(node for node in nodes if node.stage == "ingest")
        made = commit(
            store,
            ingested,
            lambda out: bare.write_images(out / "images", arguments.images, arguments.size, 1024),
        )
        paths = shards.files(made / "images")
        print(
            f"streaming {arguments.images} images of {arguments.size} px, noise: hardly compressed"
        )
        compare(
            "images",
            arguments.images,
            lambda: bare_stream(paths),
            lambda: stream(paths),
            arguments.rounds,
        )

        fitted = next(node for node in nodes if node.stage == "fit")
        network = segmenter.build("resnet18", 10)
        made = commit(
            store, fitted, lambda out: encoders.save(network, out / "segmenter.safetensors")
        )
        weights = made / "segmenter.safetensors"
        print(f"loading a segmenter, {weights.stat().st_size / 2**20:.0f} MiB")
        compare(
            "",
            1,
            lambda: load_file(weights),
            lambda: (manifest.verify(weights), load_file(weights)),
            arguments.rounds,
        )

        rest = [node for node in nodes if node.stage in ("fit", "score") and node.key != fitted.key]
        for node in rest:
            commit(store, node, lambda out: (out / "counts.parquet").write_bytes(b"x" * 1000))

        def listed() -> None:
            for node in nodes:
                name = f"{node.stage}/{node.key[:20]}"
                tree = store.backend.tree(name)
                if manifest.MANIFEST in tree:
                    json.loads((store.backend.local / name / manifest.MANIFEST).read_bytes())

        print(f"looking up {len(nodes)} results")
        compare("results", len(nodes), listed, lambda: store.find_all(nodes), arguments.rounds)
        print("checking the scores before a run")
        scores = [node for node in nodes if node.stage == "score"]
        compare(
            "scores",
            len(scores),
            lambda: store.find_all(scores),
            lambda: store.drop_damaged_scores(scores),
            1,
        )


if __name__ == "__main__":
    main()
