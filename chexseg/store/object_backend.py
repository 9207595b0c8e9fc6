"""A store in an object store, through pyarrow's file systems; this host keeps copies of what it has read.

Copies lie in ``$CHEXSEG_CACHE``, or else in ``chexseg`` in the user's cache directory, in a directory for each store. All of it
may be deleted while nothing runs but ``.partial``, which is what goes on after a kill.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import pyarrow as pa
from pyarrow import fs

from chexseg.errors import DamagedArtifactError, LeaseLostError, UserError, reason
from chexseg.store import lease
from chexseg.store.backend import TRASH, Entry, encode, now, remove_hidden, unfinished
from chexseg.store.file_lock import locked
from chexseg.store.manifest import CHUNK, MANIFEST, is_inside, parse, sha256
from chexseg.store.uris import connect

#: Requests under way at once.
AT_ONCE = 16
T = TypeVar("T")


class Bucket:
    """An artifact is the objects below a prefix, and its manifest is put last (`store.backend.Backend`)."""

    shared = False

    def __init__(self, uri: str, timing: lease.Timing | None = None):
        self.uri, self.timing = uri, timing or lease.Timing()
        place = connect(uri, "--store")
        self.files, self.root, self.title = place.files, place.path, place.title
        # What tells this store from others, without the credentials.
        identity = f"{self.title}?{urlencode(sorted(place.options.items()))}"
        self.cache = self.local = (
            cache_directory() / hashlib.sha256(identity.encode()).hexdigest()[:16]
        )
        self.objects = lease.Objects(self.write, self.delete, lambda: self.tree(lease.CLAIMS))
        self.held: dict[str, lease.Lease] = {}

    # ---- objects ---------------------------------------------------------------------------------------------------

    def tree(self, name: str) -> dict[str, Entry]:
        top = f"{self.root}/{name}".rstrip("/")
        found = self._asked(
            lambda: self.files.get_file_info(
                fs.FileSelector(top, allow_not_found=True, recursive=True)
            )
        )
        return {
            info.path.removeprefix(f"{top}/"): Entry(info.size, info.mtime_ns)
            for info in found
            if info.type == fs.FileType.File and is_inside(info.path.removeprefix(f"{top}/"))
        }

    def list_many(self, names: Iterable[str]) -> dict[str, dict[str, Entry]]:
        """One listing for each stage of which there is more than one artifact to look up."""
        by_stage: dict[str, list[str]] = {}
        for name in names:
            by_stage.setdefault(name.partition("/")[0], []).append(name)
        tops = [stage if len(wanted) > 1 else wanted[0] for stage, wanted in by_stage.items()]
        out: dict[str, dict[str, Entry]] = {
            name: {} for wanted in by_stage.values() for name in wanted
        }
        for top, tree in zip(tops, self._at_once(self.tree, tops), strict=True):
            for file, entry in tree.items():
                stage, short, *rest = f"{top}/{file}".split("/")
                if rest and f"{stage}/{short}" in out:
                    out[f"{stage}/{short}"]["/".join(rest)] = entry
        return out

    def read(self, files: Mapping[str, Entry]) -> dict[str, bytes]:
        contents = self._at_once(lambda name: self._document(name, files[name]), files)
        return {
            name: content
            for name, content in zip(files, contents, strict=True)
            if content is not None
        }

    def write(self, name: str, content: bytes) -> None:
        def put() -> None:
            with self.files.open_output_stream(f"{self.root}/{name}", compression=None) as stream:
                stream.write(content)

        self._asked(put)

    def delete(self, name: str) -> None:
        self._asked_of(name, self.files.delete_file)

    def sha256(self, name: str) -> str | None:
        def read(path: str) -> str:
            with self.files.open_input_stream(path, compression=None) as stream:
                return sha256(stream)

        return self._asked_of(name, read)

    # ---- artifacts -------------------------------------------------------------------------------------------------

    def fetch(self, name: str, manifest: Mapping[str, Any]) -> Path:
        target = self._copy(name, manifest)
        if not _whole(target, manifest):
            self._make(target.parent)
            with locked(target.with_name(f"{target.name}.lock")):
                if not _whole(target, manifest):  # nobody else has fetched it meanwhile
                    making = target.with_name(f".{target.name}")
                    self._download(name, making, manifest["files"])
                    (making / MANIFEST).write_bytes(encode(manifest))
                    shutil.rmtree(target, ignore_errors=True)
                    making.rename(target)
        return target

    def evict(self, name: str, manifest: Mapping[str, Any]) -> None:
        copy = self._copy(name, manifest)
        for file, entry in manifest["files"].items():
            with suppress(FileNotFoundError), (copy / file).open("rb") as stream:
                if sha256(stream) != entry["sha256"]:
                    (copy / file).unlink()

    @contextmanager
    def exclusive(self, name: str) -> Iterator[Path]:
        work, who = unfinished(name), f"{platform.node()}, process {os.getpid()}"
        with locked(self._lock(name)), lease.acquire(self.objects, work, who, self.timing) as claim:
            self.held[name] = claim
            try:
                yield self._partial(name)
            finally:
                del self.held[name]

    def in_progress(self) -> set[str]:
        return lease.active_leases(self.objects, self.timing)

    def publish(self, name: str, partial: Path, manifest: Mapping[str, Any]) -> None:
        self._check_claim(name)
        known = {*manifest["files"], MANIFEST}
        # What was there is incomplete, or it would have been found; other files may be somebody's own.
        others = [file for file in self.tree(name) if file not in known]
        trash = f"{TRASH}/{now()}"
        self._at_once(
            lambda file: self._copy_object(f"{name}/{file}", f"{trash}/{name}/{file}"), others
        )
        self._delete_all(name)
        self._at_once(
            lambda file: self._upload(partial / file, f"{name}/{file}"), manifest["files"]
        )
        self._check_claim(name)
        self.write(f"{name}/{MANIFEST}", encode(manifest))
        copy = self._copy(name, manifest)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(copy, ignore_errors=True)
        remove_hidden(partial)
        (partial / MANIFEST).write_bytes(encode(manifest))
        partial.rename(copy)

    def reopen(self, name: str, partial: Path, files: Iterable[str]) -> None:
        present = self.tree(name)
        files = dict.fromkeys(file for file in files if file in present)
        making = partial.with_name(f".{partial.name}")
        self._download(name, making, files)
        self.delete(f"{name}/{MANIFEST}")
        making.rename(partial)

    def partials(self) -> dict[str, Path]:
        found = sorted((self.cache / ".partial").glob("[!.]*"))
        return {path.name: path for path in found if path.is_dir()}

    def retire(self, name: str, files: Sequence[str], trash: str) -> bool:
        with locked(self._lock(name), wait=False) as acquired:
            if not acquired or unfinished(name) in lease.active_leases(self.objects, self.timing):
                return False
            present = self.tree(name)  # another process may have moved some
            files = [file for file in files if file in present]
            # An object can't be renamed: the store copies it, no byte of which passes this host, and then deletes it.
            self._at_once(
                lambda file: self._copy_object(f"{name}/{file}", f"{trash}/{name}/{file}"), files
            )
            for part in (files[:-1], files[-1:]):
                self._at_once(lambda file: self.delete(f"{name}/{file}"), part)
            if not self.tree(name):  # else what isn't ours is there
                self._asked_of(
                    name, self.files.delete_dir
                )  # pyarrow leaves an empty object in the place of a folder
            copies = (self.cache / "artifacts" / name).parent.glob(f"{Path(name).name}-*")
            for path in copies:
                shutil.rmtree(path, ignore_errors=True)
            if self._partial(name).is_dir():
                target = self.cache / trash / ".partial" / unfinished(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                self._partial(name).rename(target)
        return True

    def delete_all(self, name: str) -> None:
        self._asked_of(name, self.files.delete_dir)
        shutil.rmtree(self.cache / name, ignore_errors=True)

    # ---- how ---------------------------------------------------------------------------------------------------------

    def _document(self, name: str, entry: Entry) -> bytes | None:
        """A small object, from this host's copy where that is as old and as long."""
        kept = self.cache / "documents" / name
        with suppress(OSError):
            about = kept.stat()
            if (about.st_size, about.st_mtime_ns) == entry and (
                content := _undamaged(kept)
            ) is not None:
                return content

        def read(path: str) -> bytes:
            with self.files.open_input_stream(path, compression=None) as stream:
                return stream.read()

        content = self._asked_of(name, read)
        if content is not None:
            self._make(kept.parent)
            temporary = kept.with_name(f".{kept.name}.{os.getpid()}")
            temporary.write_bytes(content)
            os.utime(temporary, ns=(entry.modified_ns, entry.modified_ns))
            temporary.replace(kept)
        return content

    def _download(
        self, name: str, making: Path, files: Mapping[str, Mapping[str, Any] | None]
    ) -> None:
        """Files of an artifact into a new directory. Raises `DamagedArtifactError` for one that isn't there or isn't as it's said."""
        shutil.rmtree(making, ignore_errors=True)
        self._make(making)

        def copy(source_path: str, path: Path) -> str:
            digest = hashlib.sha256()
            with (
                self.files.open_input_stream(source_path, compression=None) as source,
                path.open("wb") as sink,
            ):
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    sink.write(chunk)
            return digest.hexdigest()

        def get(file: str) -> str | None:
            path = making / file
            path.parent.mkdir(parents=True, exist_ok=True)
            return self._asked_of(f"{name}/{file}", lambda source_path: copy(source_path, path))

        found = self._at_once(get, files)
        for (file, entry), digest in zip(files.items(), found, strict=True):
            if digest is None or (entry is not None and digest != entry["sha256"]):
                raise DamagedArtifactError(
                    f"{self.title}/{name}/{file}: {'gone' if digest is None else 'damaged'} since it was written"
                )

    def _copy_object(self, name: str, target: str) -> None:
        self._asked(lambda: self.files.copy_file(f"{self.root}/{name}", f"{self.root}/{target}"))

    def _upload(self, path: Path, name: str) -> None:
        def put() -> None:
            with (
                path.open("rb") as source,
                self.files.open_output_stream(f"{self.root}/{name}", compression=None) as sink,
            ):
                shutil.copyfileobj(source, sink, CHUNK)

        self._asked(put)

    def _delete_all(self, name: str) -> None:
        self.delete(f"{name}/{MANIFEST}")  # first: half an artifact must not look whole
        self._asked_of(name, self.files.delete_dir)

    def _check_claim(self, name: str) -> None:
        if not self.held[name].holds():
            raise LeaseLostError(
                f"{self.title}/{name}: no sign of life of this process reached the store for {self.timing.dead:g} s,"
                " and another has taken the work over"
            )

    def _copy(self, name: str, manifest: Mapping[str, Any]) -> Path:
        """Where a copy is, or would be. Another result of the same key is another copy."""
        return (
            self.cache / "artifacts" / f"{name}-{hashlib.sha256(encode(manifest)).hexdigest()[:8]}"
        )

    def _partial(self, name: str) -> Path:
        return self.cache / ".partial" / unfinished(name)

    def _lock(self, name: str) -> Path:
        self._make(self.cache / ".partial")
        return self.cache / ".partial" / f"{unfinished(name)}.lock"

    def _make(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{directory}: can't be made ({error.strerror}); allowed: name another place for copies in CHEXSEG_CACHE"
            ) from None

    def _at_once(self, work: Callable[[str], T], names: Iterable[str]) -> list[T]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(work, names))

    def _asked(self, request: Callable[[], T]) -> T:
        """The answer to a request. Raises `UserError` where the store doesn't give one."""
        try:
            return request()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"--store {self.title}: {reason(error)}") from None

    def _asked_of(self, name: str, request: Callable[[str], T]) -> T | None:
        """The answer to a request about one object, by its path; None where there is none."""

        def ask() -> T | None:
            with suppress(FileNotFoundError):
                return request(f"{self.root}/{name}")

        return self._asked(ask)


def cache_directory() -> Path:
    """Where this host keeps copies of object stores."""
    given, user = os.environ.get("CHEXSEG_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(given).absolute() if given else Path(user or Path.home() / ".cache") / "chexseg"


def _whole(copy: Path, manifest: Mapping[str, Any]) -> bool:
    """Return whether the files of a copy have their sizes; `manifest.verify` checks them when they are read."""
    sizes = {name: entry["size"] for name, entry in manifest["files"].items()}
    try:
        named = (copy / MANIFEST).read_bytes() == encode(manifest)
        return named and all((copy / name).stat().st_size == sizes[name] for name in sizes)
    except OSError:
        return False


def _undamaged(kept: Path) -> bytes | None:
    """The content of a kept document; None for a manifest that damage on this host has made unreadable."""
    content = kept.read_bytes()
    if kept.name == MANIFEST:
        try:
            parse(content, str(kept))
        except UserError:
            return None
    return content
