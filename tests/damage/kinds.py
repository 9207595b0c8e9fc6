"""The kinds of files that commands read: where each one is, and which commands notice its damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from chexseg.data import chexlocalize, chexpert
from chexseg.search import journal
from chexseg.store.file_lock import locked
from chexseg.store.live_runs import LIVE
from tests.damage.place import ARCHITECTURE, Place

#: The commands, in the order of the table's columns. gc moves what no study needs.
COMMANDS = ("run", "status", "report", "compare", "verify", "gc", "predict")
STUDIES = ("run", "status", "report", "compare", "gc")
Setup = Callable[[Place], AbstractContextManager[object]]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    path: the file. noticed: commands whose output its damage may change; the others are given all
    their files of all kinds with the same damage at once. other: an intact file, as of another
    artifact, to take its place. missing: stages whose results `run` lacks, so that it reads the
    file. setup: files in addition to those of a finished study, for all commands. study: the study
    file. ingests: `run` ends after the stages that read raw data. words: what messages may say in
    place of the file's name. unchecked: damages that make another valid file, with other results.
    """

    name: str
    path: Callable[[Place], Path]
    noticed: tuple[str, ...]
    other: Callable[[Place], Path]
    missing: tuple[str, ...] = ()
    setup: Setup | None = None
    study: str = "study.yaml"
    ingests: bool = False
    words: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


def of(stage: str, file: str, split: str | None = None) -> Callable[[Place], Path]:
    """Return the path of a file of the study's result."""
    return lambda place: place.result(stage, split) / file


def unneeded(file: str) -> Callable[[Place], Path]:
    """Return the path of a file of the result that no study needs."""
    return lambda place: place.unneeded / file


def in_root(name: str) -> Callable[[Place], Path]:
    return lambda place: place.root / name


def in_partial(stage: str, file: str) -> Callable[[Place], Path]:
    return lambda place: place.stored / ".partial" / place.partials[stage].name / file


def killed(stage: str, *results: str) -> Setup:
    """Return a setup with the partial directory of a stage run, without results that need it."""

    def setup(place: Place) -> AbstractContextManager[object]:
        for name in results:
            shutil.rmtree(place.result(name), ignore_errors=True)
        partial = place.partials[stage]
        shutil.copytree(partial, place.stored / ".partial" / partial.name, dirs_exist_ok=True)
        return nullcontext()

    return setup


def without_scores(place: Place) -> AbstractContextManager[object]:
    """Delete the scores, and leave the lock of a killed process."""
    shutil.rmtree(place.result("score"), ignore_errors=True)
    lock_of_scores(place).touch()
    return nullcontext()


def lock_of_scores(place: Place) -> Path:
    return place.stored / ".partial" / f"score-{place.node('score').key[:20]}.lock"


def failed_scores(place: Place) -> AbstractContextManager[object]:
    shutil.rmtree(place.result("score"), ignore_errors=True)
    place.store.record_failure(place.node("score"), "RuntimeError: no space", "Traceback: none")
    return nullcontext()


def record_of_failure(place: Place) -> Path:
    return place.stored / ".failed" / f"{place.node('score').key[:20]}.json"


def lock_of_journal(place: Place) -> Path:
    return journal.path_in(place.store).with_name("journal.flock")


def journal_in_use(place: Place) -> AbstractContextManager[object]:
    lock_of_journal(place).touch()
    return nullcontext()


RUN = "0123456789abcdef0123456789abcdef"


def live_run(place: Place) -> AbstractContextManager[object]:
    """Write the record of a run that needs the unneeded result, and hold its lock."""
    names = [str(place.unneeded.relative_to(place.stored))]
    record = {"study": "s", "host": "h", "process": 1, "names": names, "searches": False}
    place.store.write(f"{LIVE}/{RUN}.json", record)
    return locked(place.stored / ".partial" / f"run-{RUN}.lock")


def run_record(place: Place) -> Path:
    return min((place.stored / ".runs" / "small").iterdir())


NOT_PREDICT = (*STUDIES, "verify")
NO_RESULT, NO_SCORES = "made from its current test data", "none of 1 cell has been scored"
ENCODER = f"imagenet encoder of {ARCHITECTURE}"
READ = ("report", "compare", "verify")
KINDS = (
    Kind("manifest of a fit", of("fit", "manifest.json"), COMMANDS, of("classify", "manifest.json")),
    Kind("manifest of scores", of("score", "manifest.json"), NOT_PREDICT, of("fit", "manifest.json"),
         words=(NO_SCORES,)),
    Kind(
        "manifest of images", of("ingest", "manifest.json", "test"), NOT_PREDICT,
        of("ingest", "manifest.json", "valid"), words=(NO_RESULT,),
    ),
    Kind(
        "manifest of an imported encoder", of("imported", "manifest.json"), NOT_PREDICT,
        of("classify", "manifest.json"), words=(ENCODER,),
    ),
    Kind(
        "shard of training images", of("ingest", "images/part-00000.parquet", "train"),
        ("run", *READ), of("ingest", "images/part-00000.parquet", "valid"),
        missing=("classify", "saliency", "fit", "score"),
    ),
    Kind(
        "shard of test images", of("ingest", "images/part-00000.parquet", "test"),
        ("run", "report", "compare", "verify"), of("ingest", "images/part-00000.parquet", "valid"),
        missing=("score",),
    ),
    Kind(
        "shard of expert masks", of("ingest", "masks/part-00000.parquet", "test"),
        ("run", "report", "compare", "verify"), of("ingest", "masks/part-00000.parquet", "valid"),
        missing=("score",),
    ),
    Kind(
        "shard of weak masks", of("saliency", "train/part-00000.parquet"),
        ("run", *READ), of("saliency", "valid/part-00000.parquet"),
        missing=("fit", "score"),
    ),
    Kind(
        "shard of CAMs", of("saliency", "valid/part-00000.parquet"), ("report", "compare", "verify"),
        of("saliency", "train/part-00000.parquet"),
    ),
    Kind("counts of scores", of("score", "counts.parquet"), ("run", "status", *READ),
         of("saliency", "counts.parquet"), words=(NO_SCORES,)),
    Kind("predicted masks", of("score", "predictions.parquet"), ("run", "status", *READ),
         of("saliency", "predictions.parquet"), words=(NO_SCORES,)),
    Kind("counts of weak masks", of("saliency", "counts.parquet"), ("report", "compare", "verify"),
         of("score", "counts.parquet")),
    Kind("weak masks of expert images", of("saliency", "predictions.parquet"),
         ("report", "compare", "verify"), of("score", "predictions.parquet")),
    Kind("thresholds of weak masks", of("saliency", "thresholds.json"),
         ("report", "compare", "verify"), of("fit", "history.json")),
    Kind(
        "checkpoint of a classifier", of("classify", "classifier.safetensors"), ("run", *READ),
        of("imported", "encoder.safetensors"), missing=("saliency", "fit", "score"),
    ),
    Kind(
        "description of a classifier", of("classify", "classifier.json"), ("run", *READ),
        of("imported", "encoder.json"), missing=("saliency", "fit", "score"),
    ),
    Kind(
        "history of a classifier", of("classify", "history.json"), READ,
        of("fit", "training.json"),
    ),
    Kind(
        "ROC curves of a classifier", of("classify", "roc.json"), READ,
        of("classify", "training.json"),
        unchecked=("older schema",),
    ),
    Kind(
        "weights of a segmenter", of("fit", "segmenter.safetensors"), ("run", *READ, "predict"),
        of("classify", "classifier.safetensors"), missing=("score",),
    ),
    Kind(
        "description of a segmenter", of("fit", "segmenter.json"), ("run", *READ, "predict"),
        of("classify", "classifier.json"), missing=("score",),
    ),
    Kind(
        "history of a fit", of("fit", "history.json"), ("run", *READ),
        of("fit", "training.json"), missing=("score",),
    ),
    Kind(
        "weights of an imported encoder", of("imported", "encoder.safetensors"), ("run", *READ),
        of("classify", "classifier.safetensors"), missing=("fit", "score"), words=(ENCODER,),
    ),
    Kind(
        "record of an imported encoder", of("imported", "encoder.json"), ("run", *READ),
        of("classify", "classifier.json"), missing=("fit", "score"), words=(ENCODER,),
    ),
    Kind(
        "state of a killed training", in_partial("fit", "resume.pt"),
        ("run",), unneeded("segmenter.safetensors"),
        setup=killed("fit", "fit", "score"),
    ),
    Kind(
        "note of a killed training", in_partial("fit", ".inputs.json"),
        ("run",), unneeded("history.json"),
        setup=killed("fit", "fit", "score"),
    ),
    Kind(
        "shard of a killed stage", in_partial("saliency", "train/part-00000.parquet"),
        ("run",),
        lambda place: place.partials["saliency"] / "valid" / "part-00000.parquet",
        setup=killed("saliency", "saliency", "fit", "score"),
    ),
    Kind(
        "digest of such a shard", in_partial("saliency", "train/.part-00000.parquet.sha256"),
        ("run",),
        lambda place: place.partials["saliency"] / "valid" / ".part-00000.parquet.sha256",
        setup=killed("saliency", "saliency", "fit", "score"),
    ),
    Kind("lock of a killed stage", lock_of_scores, NOT_PREDICT,
         unneeded("history.json"), setup=without_scores),
    Kind("record of a failure", record_of_failure, ("run", "status", "report"),
         run_record, setup=failed_scores),
    Kind("record of a run", run_record, (), of("fit", "training.json")),
    Kind("record of a live run", lambda place: place.stored / LIVE / f"{RUN}.json", ("run", "gc"),
         unneeded("training.json"), setup=live_run),
    Kind("mark of a store", lambda place: place.stored / "chexseg-store.json", ("run", "gc"),
         of("fit", "history.json")),
    Kind("manifest of an unneeded result", unneeded("manifest.json"),
         ("verify", "gc"), of("fit", "manifest.json")),
    Kind("file of an unneeded result", unneeded("history.json"),
         ("verify", "gc"), of("fit", "training.json")),
    Kind("journal of a search", lambda place: journal.path_in(place.store),
         ("run", "status", "report", "gc"), run_record, study="searched.yaml"),
    Kind("lock of a journal", lock_of_journal, ("run",), run_record, setup=journal_in_use,
         missing=("score",)),
    Kind("study file", in_root("study.yaml"), STUDIES, in_root("searched.yaml")),
    Kind("CSV file of training images", lambda place: chexpert.locate(place.data, "train")[0],
         STUDIES, lambda place: chexpert.locate(place.data, "valid")[0], ingests=True,
         words=(NO_SCORES, "made from its current train data")),
    Kind("CSV file of test images", lambda place: chexpert.locate(place.data, "test")[0],
         STUDIES, lambda place: chexpert.locate(place.data, "valid")[0], ingests=True,
         words=(NO_SCORES, NO_RESULT)),
    Kind("image of a data set", lambda place: place.film("test"), STUDIES,
         lambda place: place.film("train"), missing=("ingest test", "score"),
         ingests=True, unchecked=("one bit flipped", "another file"), words=(NO_SCORES, NO_RESULT)),
    Kind("expert masks (JSON)", lambda place: place.data / chexlocalize.FILES["test"], STUDIES,
         lambda place: place.data / chexlocalize.FILES["valid"], ingests=True,
         words=(NO_SCORES, NO_RESULT)),
    Kind("radiologists' masks (JSON)",
         lambda place: place.data / "CheXlocalize" / "hb_segmentations_test.json",
         ("report", "compare"), lambda place: place.data / chexlocalize.FILES["valid"],
         unchecked=("deleted",)),
    Kind("image to predict on", lambda place: place.image, ("predict",),
         lambda place: place.film("train"),
         unchecked=("one bit flipped", "a folder", "another file")),
)  # fmt: skip
