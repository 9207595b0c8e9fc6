"""The commands. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from chexseg.errors import UserError

app = typer.Typer(
    help="Studies of semi-supervised chest X-ray segmentation on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Data sets: make a synthetic one, check any.", no_args_is_help=True)
encoder_app = typer.Typer(help="Encoders: bring published weights into a store.", no_args_is_help=True)
store_app = typer.Typer(help="Stores: what's in one, whether it's whole, what nothing needs.", no_args_is_help=True)
study_app = typer.Typer(help="Studies: plan, run, look.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(study_app, name="study")
app.add_typer(encoder_app, name="encoder")
app.add_typer(store_app, name="store")

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="A study file.")]
DataRoot = Annotated[Path, typer.Option("--data", metavar="ROOT", help="Directory with CheXpert and CheXlocalize.")]
StoreRoot = Annotated[
    str,
    typer.Option("--store", metavar="DIR_OR_URI", help="Where results are kept and found again, such as s3://bucket/prefix."),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Lay a setting over the study file's own.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", help="No progress.")]

DEFAULT_STORE = "chexseg-store"
#: The demo's data set: images of train, valid and test, and their short side.
DEMO_DATA = {"train": 320, "valid": 80, "test": 48, "size": 128}


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2."""
    try:
        app()
    except UserError as error:
        typer.echo(f"chexseg: {error}", err=True)
        sys.exit(2)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where everything goes.")] = Path("demo"),
    store: Annotated[str | None, typer.Option("--store", metavar="DIR_OR_URI", help="Without: OUT/store.")] = None,
    quiet: QuietFlag = False,
) -> None:
    """The main job on synthetic radiographs: data, all stages, report."""
    from chexseg.report import tables

    started = time.monotonic()
    study_path = _shipped_study("demo.yaml")
    data, store = out / "data", store or str(out / "store")
    if not data.exists():
        _write_phantom(data, quiet=quiet, **DEMO_DATA)
    outcome = _run_study(study_path, data, store, None, None, quiet)
    results, written = _report([study_path], data, store, out / "report", None)
    typer.echo(tables.to_terminal(tables.table1_rows(results[0])))
    typer.echo("")
    for line in _timings(results[0], outcome):
        typer.echo(line)
    typer.echo(f"\nThe page: {written.page}\nAll of it took {time.monotonic() - started:.0f} s.")
    if outcome.failed:
        raise typer.Exit(1)


@data_app.command("phantom")
def data_phantom(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="An empty or new directory.")],
    train: Annotated[int, typer.Option(min=1, help="Training images.")] = 320,
    valid: Annotated[int, typer.Option(min=1, help="Validation images.")] = 90,
    test: Annotated[int, typer.Option(min=1, help="Test images.")] = 80,
    seed: Annotated[int, typer.Option(help="Another seed, another data set.")] = 0,
    size: Annotated[int, typer.Option(help="Pixels of the short side.")] = 320,
    prevalence: Annotated[
        float | None, typer.Option(help="Every finding this often, none tied to another; without: as in CheXpert.")
    ] = None,
    quiet: QuietFlag = False,
) -> None:
    """Write synthetic radiographs with all ten pathologies in the published layout."""
    _write_phantom(root, train=train, valid=valid, test=test, seed=seed, size=size, prevalence=prevalence, quiet=quiet)
    typer.echo(f"{root}: {train} training, {valid} validation and {test} test images")


@data_app.command("check")
def data_check(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Directory with CheXpert and CheXlocalize.")],
    as_json: AsJson = False,
    quiet: QuietFlag = False,
) -> None:
    """List every fault of a data set; exit code 1 if a study would fail on it."""
    from chexseg.data import audit
    from chexseg.progress import reporter

    watch = reporter(quiet)
    try:
        found = audit.check(root, lambda done, total: watch.update("check", done, total, "images"))
    finally:
        watch.close()
    typer.echo(json.dumps(found.as_dict(), indent=1) if as_json else found.text())
    if found.fatal:
        raise typer.Exit(1)


@encoder_app.command("import")
def encoder_import(
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="What it was trained on: moco-cxr, chexpert, imagenet.")],
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="A checkpoint: .safetensors, or torch's with plain weights. Without, imagenet's come from this machine's"
            " caches or the network.",
        ),
    ] = None,
    architecture: Annotated[str, typer.Option(help="An encoder of segmentation-models-pytorch.")] = "resnet18",
    store: StoreRoot = DEFAULT_STORE,
) -> None:
    """Put a published encoder into a store, for studies to start from. Nothing in the file is run."""
    from chexseg.models.foreign import few
    from chexseg.stages.imported import KINDS
    from chexseg.study import imports
    from chexseg.study.settings import OWN_ENCODERS
    from chexseg.study.store import Store

    file = file or imports.published(kind, architecture)
    done = imports.import_encoder(file, kind, architecture, Store(store))
    read, init = done.encoder, KINDS[kind]
    ignored = f"{len(read.ignored)} ignored" + (f" ({few(read.ignored)})" if read.ignored else "")
    under = f", found under {read.prefix}*" if read.prefix else ""
    typer.echo(f"{file}: {read.matched} tensors of a {architecture}{under}; {ignored}")
    typer.echo(f"{done.artifact.place}: {'these weights were there already' if done.found else 'written'}")
    setting = f"encoder.init: {init}" + (" and encoder.imported: true" if init in OWN_ENCODERS else "")
    setting += f", irnet.init: {init}" if init == "imagenet" else ""
    if done.newest:
        typer.echo(f"Studies with this store start from them by {setting}, with architecture: {architecture}.")
    else:
        typer.echo(
            f"note: studies take the {kind} encoder of {architecture} that was imported last, which is another;"
            " for this one, remove this directory and import it again"
        )


@study_app.command("plan")
def study_plan(
    study: StudyFile,
    data: DataRoot,
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show the cells of a study, the stages they need, and what of it is in the store already."""
    from chexseg.study import meaning

    (meant,), place = _read([study], data, store, overrides)
    found = meaning.summarise(meant, place, data)
    typer.echo(json.dumps(found.plan_dict(), indent=1) if as_json else found.plan_text())


@study_app.command("run")
def study_run(
    study: StudyFile,
    data: DataRoot,
    store: StoreRoot = DEFAULT_STORE,
    address: Annotated[
        str | None, typer.Option(metavar="ADDR", envvar="RAY_ADDRESS", help="A Ray cluster, such as auto; none: a local one.")
    ] = None,
    grow_to: Annotated[
        str | None, typer.Option(metavar="GPU=N,CPU=N", help="What the cluster may grow to, if it has an autoscaler.")
    ] = None,
    overrides: Overrides = None,
    quiet: QuietFlag = False,
) -> None:
    """Run whatever of a study is not in the store yet; exit code 1 if a cell is still missing after."""
    from chexseg.study.store import Store

    outcome = _run_study(study, data, store, address, overrides, quiet, grow_to)
    typer.echo(
        f"{len(outcome.computed)} stages computed in {outcome.seconds:.0f} s, {outcome.cached} found in {Store(store)},"
        f" {len(outcome.failed)} failed",
        err=True,
    )
    if outcome.failed:
        raise typer.Exit(1)


@study_app.command("status")
def study_status(
    study: StudyFile,
    data: DataRoot,
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show which cells are done, missing or failed."""
    from chexseg.study import meaning

    (meant,), place = _read([study], data, store, overrides)
    found = meaning.summarise(meant, place)
    typer.echo(json.dumps(found.status_dict(), indent=1) if as_json else found.status_text())


@store_app.command("list")
def store_list(store: StoreRoot = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Every artifact: stage, key, size, how long it took, when and where."""
    from chexseg.study import housekeeping
    from chexseg.study.store import Store

    there = housekeeping.contents(Store(store))
    typer.echo(json.dumps([content.row() for content in there], indent=1) if as_json else housekeeping.table(there))


@store_app.command("verify")
def store_verify(store: StoreRoot = DEFAULT_STORE, quiet: QuietFlag = False) -> None:
    """Read every file again and compare it with its manifest; exit code 1 if any is damaged."""
    from chexseg.progress import reporter
    from chexseg.study import housekeeping
    from chexseg.study.store import Store

    watch = reporter(quiet)
    try:
        found = housekeeping.verify(Store(store), lambda done, total, unit: watch.update("verify", done, total, unit))
    finally:
        watch.close()
    typer.echo(found.text())
    if found.damaged:
        raise typer.Exit(1)


@store_app.command("gc")
def store_gc(
    studies: Annotated[list[Path], typer.Argument(metavar="STUDY.yaml ...", help="The studies whose results stay.")],
    data: DataRoot,
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
    imported: Annotated[bool, typer.Option("--imported", help="Imported encoders too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    quiet: QuietFlag = False,
) -> None:
    """Delete what none of these studies needs, after asking. What is being worked on stays."""
    from chexseg.progress import reporter
    from chexseg.study import housekeeping, meaning

    meant, place = _read(studies, data, store, overrides)
    rubbish = housekeeping.waste(place, [meaning.planned(one, place, every=True) for one in meant], imported)
    for one in rubbish:
        typer.echo(f"{one.name:<32} {housekeeping.size(one.bytes):>8}  {one.why}")
    total = housekeeping.size(sum(one.bytes for one in rubbish))
    typer.echo(f"{len(rubbish)} artifacts, {total}, are needed by none of {', '.join(map(str, studies))}")
    if not rubbish:
        return
    if not yes:
        if not _on_terminal():
            raise UserError("store gc: there is nobody to ask; allowed: --yes, to delete what is listed above")
        typer.confirm(f"Delete them from {place}?", abort=True)
    watch = reporter(quiet)
    try:
        kept = housekeeping.remove(place, rubbish, lambda done, total, unit: watch.update("gc", done, total, unit))
    finally:
        watch.close()
    for one in kept:
        typer.echo(f"kept: {one.name}, on which someone works")
    typer.echo(f"{len(rubbish) - len(kept)} artifacts deleted")


@app.command()
def report(
    studies: Annotated[list[Path], typer.Argument(metavar="STUDY.yaml ...", help="Study files.")],
    data: DataRoot,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where index.html, tables/ and figures/ go.")],
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
) -> None:
    """Make the tables, the figures and one page of what a store holds of some studies."""
    from chexseg.report import tables

    results, written = _report(studies, data, store, out, overrides)
    for result in results:
        typer.echo(f"{result.name}: {len(result.cells)} of {len(result.cells) + len(result.missing)} cells finished")
        if len(result.cells):
            typer.echo(tables.to_terminal(tables.table1_rows(result)))
    for note in written.notes:
        typer.echo(note, err=True)
    typer.echo(str(written.page))


@app.command()
def evaluate(
    gt: Annotated[Path, typer.Option("--gt", metavar="GT.json", help="Ground truth, a CheXlocalize mask file.")],
    pred: Annotated[Path, typer.Option("--pred", metavar="PRED.json", help="Predictions in the same format.")],
    metric: Annotated[str, typer.Option(help="pooled (the paper's IoU) or per-image (CheXlocalize's).")] = "pooled",
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where iou.csv goes.")] = None,
) -> None:
    """IoU of predicted masks against the ground truth, CheXlocalize files in, CSV out."""
    from chexseg.report import evaluation

    rows = evaluation.evaluate(gt, pred, metric)
    for note in rows.attrs["notes"]:
        typer.echo(f"note: {note}", err=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        rows.to_csv(out / "iou.csv", index=False)
    typer.echo(rows.to_csv(index=False).rstrip())


@app.command()
def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A fitted segmenter: STORE/fit/KEY, or the weights in it.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE_OR_DIR ...", help="JPEG, PNG, DICOM, or directories of them.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="An empty or new directory.")],
    quiet: QuietFlag = False,
) -> None:
    """Masks of new images as a CheXlocalize file, at each image's own size, and an overlay of each."""
    from chexseg.predict import films

    found = films.find(images)  # before torch, which takes its time
    with _whole_or_none(out) as making:
        from chexseg.predict import segment
        from chexseg.progress import reporter

        segmenter, watch = segment.load(_segmenter(model)), reporter(quiet)
        try:
            counts = segment.run(segmenter, found, making, watch)
        finally:
            watch.close()
    typer.echo(f"{out}: {segment.MASKS} and {segment.OVERLAYS}/ of {len(found)} images")
    for name, count in counts.items():
        typer.echo(f"{name:<27} on {count}")


@contextmanager
def _whole_or_none(root: Path) -> Iterator[Path]:
    """A place beside the directory `root` to fill, moved there at the end; nothing is left of it after a failure."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root}: is there already; allowed: a new or empty directory")
    making = root.absolute().with_name(f".{root.name}.partial")
    shutil.rmtree(making, ignore_errors=True)
    try:
        yield making
        making.replace(root.absolute())
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _segmenter(model: str) -> Path:
    """Where the segmenter is on this host; one in an object store is fetched."""
    if "://" not in model:
        return Path(model)
    from urllib.parse import urlsplit

    from chexseg.study.store import Store

    parts = urlsplit(model)
    root, _, key = parts.path.rpartition("/fit/")
    store = Store(parts._replace(path=root).geturl())
    artifact = store.find("fit", key.strip("/"))
    if artifact is None:
        raise UserError(f"{store}: found no finished segmenter {key!r}; allowed: such as s3://bucket/prefix/fit/KEY")
    return artifact.path


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _write_phantom(root: Path, quiet: bool, **settings: Any) -> None:
    from chexseg.phantom import dataset
    from chexseg.progress import reporter

    config = dataset.Config(**settings)
    with _whole_or_none(root) as making:
        watch = reporter(quiet)
        try:
            dataset.write(making, config, lambda done, total: watch.update("phantom", done, total, "images"))
        finally:
            watch.close()


def _read(
    studies: list[Path], data: Path, store: str, overrides: list[str] | None, apart: bool = False
) -> tuple[list[Any], Any]:
    """(what the study files mean, the store)."""
    from chexseg.study import meaning
    from chexseg.study.store import Store

    place = Store(store)  # first: reading the data takes its time
    option = "" if store == DEFAULT_STORE else f" --store {shlex.quote(store)}"
    return meaning.read(studies, data, place, overrides or (), apart, option), place


def _run_study(
    study: Path,
    data: Path,
    store: str,
    address: str | None,
    overrides: list[str] | None,
    quiet: bool,
    grow_to: str | None = None,
) -> Any:
    from chexseg.progress import reporter
    from chexseg.study import launch
    from chexseg.study.growth import NO_GROWTH, Growth

    growth = Growth.parse(grow_to)
    if growth != NO_GROWTH and not address:
        raise UserError("--grow-to: found without --address; a local Ray doesn't grow; allowed: with --address ADDR")
    (meant,), results = _read([study], data, store, overrides)
    watch = reporter(quiet)
    try:
        return launch.launch(meant, results, data, watch, address, study, overrides or (), growth)
    except KeyboardInterrupt:
        typer.echo("chexseg: interrupted; the same command goes on from here", err=True)
        raise typer.Exit(130) from None
    finally:
        watch.close()


def _report(studies: list[Path], data: Path, store: str, out: Path, overrides: list[str] | None) -> Any:
    from chexseg.report import load, page
    from chexseg.study import meaning

    meant, place = _read(studies, data, store, overrides, apart=True)
    results = [load.study_results(meaning.planned(one, place), place) for one in meant]
    return results, page.publish(results, out)


def _timings(results: Any, outcome: Any) -> list[str]:
    """How long each kind of stage took, when it was computed, and whether that was now."""
    lines = [f"{'stage':<10} {'runs':>4} {'now':>4} {'seconds':>8}"]
    for stage, group in results.stages.groupby("stage", sort=False):
        now = sum(key in outcome.computed for key in group["key"])
        lines.append(f"{stage:<10} {len(group):>4} {now:>4} {group['seconds'].sum():>8.1f}")
    return lines


def _shipped_study(name: str) -> Path:
    path = Path(__file__).resolve().parent.parent / "studies" / name
    if not path.is_file():
        raise UserError(f"{path}: not there; allowed: a checkout of chexseg, where studies/ stands beside chexseg/")
    return path


if __name__ == "__main__":
    main()
