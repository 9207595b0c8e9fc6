"""A store in an object store, through pyarrow's file systems, with copies on this host.

Copies are in ``$CHEXSEG_CACHE``, by default ``chexseg`` in the user's cache directory, in one
directory for each store. While nothing runs, all of it may be deleted except ``.partial``, from
which killed stages resume.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

import pyarrow as pa
from pyarrow import fs

from chexseg.errors import DamagedArtifactError, LeaseLostError, UserError, reason
from chexseg.store import lease
from chexseg.store.backend import Entry, encode, new_collection, rename_partial, unfinished
from chexseg.store.file_lock import locked
from chexseg.store.manifest import CHUNK, MANIFEST, is_inside, sha256
from chexseg.store.uris import WholeAnswers, connect

#: Concurrent requests.
AT_ONCE = 16
DIGEST = hashlib.sha256().digest_size
T = TypeVar("T")


class ObjectBackend:
    """Artifacts as objects below a prefix, the manifest put last (`store.backend.Backend`)."""

    shared = False

    def __init__(self, uri: str, timing: lease.Timing | None = None):
        self.uri, self.timing = uri, timing or lease.Timing()
        place = connect(uri, "--store")
        self.files, self.root, self.title = place.files, place.path, place.title
        # Distinguishes stores, without the credentials.
        identity = f"{self.title}?{urlencode(sorted(place.options.items()))}"
        digest = hashlib.sha256(identity.encode()).hexdigest()
        self.cache = self.local = cache_directory() / digest[:16]
        self.leases: dict[str, lease.Lease] = {}
        self.logs: dict[str, bytes] = defaultdict(bytes)

    def tree(self, name: str) -> dict[str, Entry]:
        top = f"{self.root}/{name}".rstrip("/")
        selector = fs.FileSelector(top, allow_not_found=True, recursive=True)
        with self._one_line_errors():
            listing = self.files.get_file_info(selector)
        return {
            info.path.removeprefix(f"{top}/"): Entry(info.size, info.mtime_ns)
            for info in listing
            if info.type == fs.FileType.File and is_inside(info.path.removeprefix(f"{top}/"))
        }

    def list_many(self, names: Iterable[str]) -> dict[str, dict[str, Entry]]:
        """Return the `tree` of each artifact, by one listing for each stage with several."""
        by_stage: dict[str, list[str]] = {}
        for name in names:
            by_stage.setdefault(name.partition("/")[0], []).append(name)
        tops = [stage if len(group) > 1 else group[0] for stage, group in by_stage.items()]
        trees = {name: dict[str, Entry]() for group in by_stage.values() for name in group}
        for top, tree in zip(tops, self._concurrently(self.tree, tops), strict=True):
            for file, entry in tree.items():
                stage, short, *rest = f"{top}/{file}".split("/")
                if rest and f"{stage}/{short}" in trees:
                    trees[f"{stage}/{short}"]["/".join(rest)] = entry
        return trees

    def read(self, files: Mapping[str, Entry]) -> dict[str, bytes]:
        contents = self._concurrently(lambda name: self._document(name, files[name]), files)
        named = zip(files, contents, strict=True)
        return {name: content for name, content in named if content is not None}

    def write(self, name: str, content: bytes) -> None:
        with (
            self._one_line_errors(),
            self.files.open_output_stream(f"{self.root}/{name}", compression=None) as stream,
        ):
            stream.write(content)

    def append(self, name: str, content: bytes) -> None:
        """Put the whole log: objects can't grow."""
        self.logs[name] += content
        self.write(name, self.logs[name])

    def delete(self, name: str) -> None:
        self._request_object(name, self.files.delete_file)

    def sha256(self, name: str) -> str | None:
        return self._read(name, sha256)

    def fetch(self, name: str, manifest: Mapping[str, Any]) -> Path:
        target = self._copy(name, manifest)
        if not _is_complete(target, manifest):
            self._make(target.parent)
            with locked(target.with_name(f"{target.name}.lock")):
                if not _is_complete(target, manifest):  # no other process has fetched it
                    temporary = target.with_name(f".{target.name}")
                    self._download(name, temporary, manifest["files"])
                    (temporary / MANIFEST).write_bytes(encode(manifest))
                    shutil.rmtree(target, ignore_errors=True)
                    temporary.rename(target)
        return target

    def evict(self, name: str, manifest: Mapping[str, Any]) -> None:
        copy = self._copy(name, manifest)
        for file, entry in manifest["files"].items():
            with suppress(FileNotFoundError), (copy / file).open("rb") as stream:
                if sha256(stream) != entry["sha256"]:
                    (copy / file).unlink()

    @contextmanager
    def exclusive(self, name: str) -> Iterator[Path]:
        work, holder = unfinished(name), f"{platform.node()}, process {os.getpid()}"
        with (
            locked(self._lock(name)),
            lease.acquire(self, work, holder, self.timing) as self.leases[name],
        ):
            try:
                yield self._partial(name)
            finally:
                del self.leases[name]

    def in_progress(self) -> set[str]:
        return lease.active_leases(self, self.timing)

    def publish(self, name: str, partial: Path, manifest: Mapping[str, Any]) -> None:
        self._require_lease(name)
        # A complete result is never computed again. Other files may be the user's.
        others = [file for file in self.tree(name) if file not in {*manifest["files"], MANIFEST}]
        if others:
            self._copy_objects(name, others, new_collection(self.tree))
        self.delete(f"{name}/{MANIFEST}")  # first: half an artifact must not look complete
        self._request_object(name, self.files.delete_dir)
        self._concurrently(
            lambda file: self._upload(partial / file, f"{name}/{file}"), manifest["files"]
        )
        self._require_lease(name)
        self.write(f"{name}/{MANIFEST}", encode(manifest))
        copy = self._copy(name, manifest)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(copy, ignore_errors=True)
        (partial / MANIFEST).write_bytes(encode(manifest))
        rename_partial(partial, copy)

    def reopen(self, name: str, partial: Path, files: Iterable[str]) -> None:
        present = self.tree(name)
        temporary = partial.with_name(f".{partial.name}")
        self._download(name, temporary, dict.fromkeys(file for file in files if file in present))
        self.delete(f"{name}/{MANIFEST}")
        temporary.rename(partial)

    def partials(self) -> dict[str, Path]:
        paths = sorted((self.cache / ".partial").glob("[!.]*"))
        return {path.name: path for path in paths if path.is_dir() and not path.is_symlink()}

    def retire(self, name: str, files: Sequence[str], trash: str) -> bool:
        with locked(self._lock(name), wait=False) as acquired:
            if not acquired or unfinished(name) in self.in_progress():
                return False
            present = self.tree(name)  # another process may have moved some
            files = [file for file in files if file in present]
            # Objects can't be renamed. The store copies each without this host, and deletes it.
            self._copy_objects(name, files, trash)
            for part in (files[:-1], files[-1:]):
                self._concurrently(lambda file: self.delete(f"{name}/{file}"), part)
            if not self.tree(name):  # no files of the user; pyarrow leaves an empty object
                self._request_object(name, self.files.delete_dir)
            for path in (self.cache / "artifacts" / name).parent.glob(f"{Path(name).name}-*"):
                shutil.rmtree(path, ignore_errors=True)
            if self._partial(name).is_dir():
                target = self.cache / trash / ".partial" / unfinished(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                self._partial(name).rename(target)
        return True

    def delete_all(self, name: str) -> None:
        self._request_object(name, self.files.delete_dir)
        shutil.rmtree(self.cache / name, ignore_errors=True)

    def _document(self, name: str, entry: Entry) -> bytes | None:
        """Return a small object, from this host's copy if time and size are equal.

        A copy begins with the digest of what follows, for it may have been damaged since.
        """
        copy = self.cache / "documents" / name
        with suppress(OSError):
            status = copy.stat()
            if (status.st_size - DIGEST, status.st_mtime_ns) == entry:
                copied = copy.read_bytes()
                if copied[:DIGEST] == hashlib.sha256(copied[DIGEST:]).digest():
                    return copied[DIGEST:]

        content = self._read(name, lambda file: cast(bytes, file.read()))
        if content is not None:
            with suppress(OSError, UserError):  # reading needs no place for copies
                self._make(copy.parent)
                temporary = copy.with_name(f".{copy.name}.{os.getpid()}")
                temporary.write_bytes(hashlib.sha256(content).digest() + content)
                os.utime(temporary, ns=(entry.modified_ns, entry.modified_ns))
                temporary.replace(copy)
        return content

    def _download(
        self, name: str, target: Path, files: Mapping[str, Mapping[str, Any] | None]
    ) -> None:
        """Copy files of an artifact into a new directory.

        files: name -> manifest entry; None skips the comparison. Raises `DamagedArtifactError` for
        a file that is missing or differs.
        """
        shutil.rmtree(target, ignore_errors=True)
        self._make(target)

        def save(source: Any, path: Path) -> str:
            digest = hashlib.sha256()
            with _copying(path):
                path.write_bytes(b"")
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                with _copying(path), path.open("ab") as sink:
                    sink.write(chunk)
            return digest.hexdigest()

        def get(file: str) -> str | None:
            path = target / file
            path.parent.mkdir(parents=True, exist_ok=True)
            return self._read(f"{name}/{file}", lambda source: save(source, path))

        digests = self._concurrently(get, files)
        for (file, entry), digest in zip(files.items(), digests, strict=True):
            if digest is None or (entry is not None and digest != entry["sha256"]):
                fault = "gone" if digest is None else "damaged"
                raise DamagedArtifactError(
                    f"{self.title}/{name}/{file}: {fault} since it was written"
                )

    def _copy_objects(self, name: str, files: Iterable[str], folder: str) -> None:
        def copy(file: str) -> None:
            source, target = (
                f"{top}/{name}/{file}" for top in (self.root, f"{self.root}/{folder}")
            )
            with self._one_line_errors():
                self.files.copy_file(source, target)

        self._concurrently(copy, files)

    def _upload(self, path: Path, name: str) -> None:
        with (
            self._one_line_errors(),
            path.open("rb") as source,
            self.files.open_output_stream(f"{self.root}/{name}", compression=None) as sink,
        ):
            shutil.copyfileobj(source, sink, CHUNK)

    def _require_lease(self, name: str) -> None:
        if self.leases[name].rank() != 0:
            raise LeaseLostError(
                f"{self.title}/{name}: no heartbeat of this process reached the store for"
                f" {self.timing.expiry:g} s, and another has taken the work over"
            )

    def _copy(self, name: str, manifest: Mapping[str, Any]) -> Path:
        """Return the path of a copy. A result that was computed again has another one."""
        digest = hashlib.sha256(encode(manifest)).hexdigest()
        return self.cache / "artifacts" / f"{name}-{digest[:8]}"

    def _partial(self, name: str) -> Path:
        return self.cache / ".partial" / unfinished(name)

    def _lock(self, name: str) -> Path:
        self._make(self.cache / ".partial")
        return self.cache / ".partial" / f"{unfinished(name)}.lock"

    def _make(self, directory: Path) -> None:
        with _copying(directory):
            directory.mkdir(parents=True, exist_ok=True)

    def _concurrently(self, work: Callable[[str], T], names: Iterable[str]) -> list[T]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(work, names))

    def _read(self, name: str, use: Callable[[Any], T]) -> T | None:
        def read(path: str) -> T:
            with self.files.open_input_file(path) as file:
                return use(WholeAnswers(file))

        return self._request_object(name, read)

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Raise an error of a request as a `UserError`: the store refuses, or is away."""
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"--store {self.title}: {reason(error)}") from None

    def _request_object(self, name: str, request: Callable[[str], T]) -> T | None:
        """Return the answer to a request for an object's path, or None if there is no object."""
        with self._one_line_errors(), suppress(FileNotFoundError):
            return request(f"{self.root}/{name}")
        return None


@contextmanager
def _copying(path: Path) -> Iterator[None]:
    """Raise an OSError of this host's copies as a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({reason(error)}); expected: a writable folder with free"
            " space; hint: name one for copies in CHEXSEG_CACHE"
        ) from None


def cache_directory() -> Path:
    """Return the directory in which this host keeps copies of object stores.

    Raises `UserError` for a user without a home directory who names none.
    """
    if given := os.environ.get("CHEXSEG_CACHE"):
        return Path(given).absolute()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chexseg"
    except RuntimeError:
        raise UserError(
            "CHEXSEG_CACHE: not set, and this user has no home directory; expected: one of them,"
            " for copies of object stores"
        ) from None


def _is_complete(copy: Path, manifest: Mapping[str, Any]) -> bool:
    """Return whether a copy's files have their sizes; `manifest.verify` checks their content."""
    with suppress(OSError):
        return (copy / MANIFEST).read_bytes() == encode(manifest) and all(
            (copy / name).stat().st_size == entry["size"]
            for name, entry in manifest["files"].items()
        )
    return False
