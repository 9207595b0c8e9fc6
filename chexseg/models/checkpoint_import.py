"""Import of foreign checkpoints: read them safely, and map their names onto our encoders.

Supports safetensors, and torch's own formats if ``torch.load(weights_only=True)`` reads them, that
is, tensors and plain containers. Nothing in a file is run. A file whose unpickling would call
anything else is refused, and the error names it.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from chexseg.errors import UserError
from chexseg.models import encoders
from chexseg.untrusted.torch_format import PLAIN, check

#: Keys under which a checkpoint may store its state dict; without any of them it is one itself.
CONTAINERS = ("state_dict", "model_state_dict", "model", "network", "net")
#: Prefixes of an encoder that is preferred to others in the same file: MoCo's query encoder, which
#: is trained, to its average over time, and common wrappers.
PREFERRED = (
    "module.encoder_q.",
    "encoder_q.",
    "model.model.",
    "module.model.",
    "model.",
    "module.",
    "encoder.",
    "backbone.",
    "",
)
#: Old DenseNets of torchvision have ``denselayer1.norm.1.weight`` for ``denselayer1.norm1.weight``.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
#: A buffer of batch normalisation, used only with a momentum of None; old files lack it.
_COUNTER = "num_batches_tracked"
_ZIP = b"PK"  # the start of an archive
#: Position of the word ustar in a tar file.
_TAR_MAGIC_AT = 257
_EXPECTED = "expected tensors in plain dictionaries and lists, as safetensors or by torch.save"


@dataclass(frozen=True)
class ForeignEncoder:
    """An encoder read from a foreign checkpoint.

    weights: a complete state dict, with names, shapes and types as in `encoders.build`.
    prefix: prefix of the names in the file.
    matched: number of tensors taken from the file.
    ignored: the file's other tensors (heads, a momentum encoder, a queue).
    """

    architecture: str
    weights: Mapping[str, Tensor]
    prefix: str
    matched: int
    ignored: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Return the digest of the weights; it doesn't depend on their names in the file."""
        digest = hashlib.sha256()
        for name, value in sorted(self.weights.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.numpy().tobytes())
        return digest.hexdigest()


def read(path: Path) -> Any:
    """Return a checkpoint's content: tensors, numbers and text in dictionaries and lists.

    Raises `UserError` for a file that is missing, damaged, compressed, or needs more than that.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a checkpoint")
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            # torch's warnings about protocols and TorchScript span several lines.
            warnings.simplefilter("ignore")
            source = _uncompressed(path)
            check(source)
            return torch.load(source, weights_only=True, map_location="cpu")
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except pickle.UnpicklingError as error:
        raise UserError(_refusal(path, _offender(path, str(error)))) from None
    except Exception as error:  # torch raises almost any exception for bytes it did not write
        reason = " ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise UserError(
            f"{path}: damaged, or not a file of weights ({_printable(reason)}); {_EXPECTED}"
        ) from None


def _uncompressed(path: Path) -> io.BytesIO:
    """Return a file's bytes for torch to read; of a zip archive, a copy of uncompressed members.

    A compressed member, or members that overlap, could need far more memory than the file. torch
    and `zipfile` may find different directories in one file, so torch gets only what was checked.
    torch's reader ignores the case of names, so names that differ only in case are refused too.
    Raises `UserError` for an archive with such members, and for formats that contain programs.
    """
    source = io.BytesIO(path.read_bytes())
    if not source.getvalue().startswith(_ZIP):
        # Not `tarfile`, which inflates files: 3 MB of gzip could take 3 GB.
        if source.getvalue().startswith(b"ustar", _TAR_MAGIC_AT):
            raise UserError(_refusal(path, "torch's legacy .tar format"))
        return source
    copy = io.BytesIO()
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(copy, "w") as checked:
        members = archive.infolist()
        if any(member.filename.endswith("/constants.pkl") for member in members):
            raise UserError(f"{path}: found a TorchScript archive; {_EXPECTED}")
        size, limit = sum(member.file_size for member in members), path.stat().st_size
        if size > limit or any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise UserError(
                f"{path}: found an archive with compressed or overlapping members"
                f" ({size} bytes in {limit}); {_EXPECTED}, uncompressed"
            )
        counts = Counter(member.filename.lower() for member in members)
        if repeated := [name for name, number in counts.items() if number > 1]:
            raise UserError(
                f"{path}: found several members named {few(repeated)}, whatever the case;"
                " expected each name once"
            )
        for member in members:
            if not member.CRC:
                del member.CRC  # torch can write files without checksums
            checked.writestr(member.filename, archive.read(member))
    copy.seek(0)
    return copy


def encoder(path: Path, architecture: str) -> ForeignEncoder:
    """Return the encoder in a checkpoint, whatever prefix its names have in common.

    architecture: an encoder of segmentation-models-pytorch. Raises `UserError` if the file can't be
    read (`read`), if a tensor is missing or has another shape, if several prefixes fit equally
    well, and if the file has more layers than the architecture (a resnet34 has all names of a
    resnet18).
    """
    with torch.device("meta"):  # only names, shapes and types are needed
        target = encoders.build(architecture).state_dict()
    state = _state_dict(path, read(path))

    def under(prefix: str) -> dict[str, str]:
        """Return the encoder's name of a tensor -> its name in the file."""
        return {
            _OLD_DENSENET.sub(r"\1\2", name[len(prefix) :]): name
            for name in state
            if name.startswith(prefix)
        }

    prefix = _prefix(path, state, target)
    names = under(prefix)
    single = set(names.values())
    if double := [name for name in state if name.startswith(prefix) and name not in single]:
        raise UserError(
            f"{path}: found old and new names of the same tensors ({few(double)});"
            " expected one name each"
        )
    expected = f"expected the weights of a {architecture}; hint: set another --architecture"
    missing = [name for name in target if name not in names and not name.endswith(_COUNTER)]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} tensors of a {architecture} are missing ({few(missing)});"
            f" found {few(list(state))}; {expected}"
        )
    roots = {name.partition(".")[0] for name in target}
    extra = [
        names[name] for name in names if name not in target and name.partition(".")[0] in roots
    ]
    if extra:
        raise UserError(
            f"{path}: found layers that a {architecture} does not have ({few(extra)}); {expected}"
        )
    weights = {}
    for name, like in target.items():
        if name not in names:
            weights[name] = torch.zeros(like.shape, dtype=like.dtype)
            continue
        value, location = state[names[name]], f"{path}: {_printable(names[name])}"
        if value.shape != like.shape:
            raise UserError(
                f"{location}: found shape {tuple(value.shape)}; expected {tuple(like.shape)}"
                f" as in a {architecture}; hint: set another --architecture"
            )
        plain = (
            value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
        )
        if not plain or value.is_floating_point() != like.is_floating_point():
            raise UserError(
                f"{location}: found a tensor of {value.dtype}, {value.layout};"
                f" expected plain {like.dtype}"
            )
        weights[name] = value.detach().resolve_neg().to(like.dtype).contiguous()
        if not weights[name].isfinite().all():
            raise UserError(f"{location}: found infinite or NaN values; expected finite ones")
        # In eval mode batch norm divides by its root, which would be NaN.
        if name.endswith(".running_var") and (weights[name] < 0).any():
            raise UserError(f"{location}: found negative variances; expected none")
    used = {names[name] for name in target if name in names}
    return ForeignEncoder(
        architecture, weights, prefix, len(used), tuple(name for name in state if name not in used)
    )


def _prefix(path: Path, state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    """Return the prefix with which the most names of an encoder are in a file; "" if none is.

    Counters, which a whole encoder may lack, don't count. Raises `UserError` if there are several
    and none is `PREFERRED`.
    """
    counts: Counter[str] = Counter()
    required = {name for name in target if not name.endswith(_COUNTER)}
    longest = 1 + max(name.count(".") for name in required)
    for name in state:
        parts = _OLD_DENSENET.sub(r"\1\2", name).split(".")
        for start in range(max(0, len(parts) - longest), len(parts)):
            if ".".join(parts[start:]) in required:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    most = max(counts.values(), default=0)
    prefixes = [prefix for prefix, count in counts.items() if count == most]
    preferred = [prefix for prefix in PREFERRED if prefix in prefixes]
    if len(prefixes) > 1 and not preferred:
        raise UserError(
            f"{path}: found the tensors of several encoders, under {few(prefixes)}; expected one;"
            " hint: save the state dict of one of them"
        )
    return next(iter([*preferred, *prefixes]), "")


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, from whichever of `CONTAINERS` holds them."""
    for _ in CONTAINERS:  # limits the depth, because a container can contain itself
        inner = {
            key: content[key]
            for key in CONTAINERS
            if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)
        }
        filled = [
            key
            for key, value in inner.items()
            if any(isinstance(tensor, Tensor) for tensor in value.values())
        ]
        if len(filled) > 1:
            raise UserError(f"{path}: found weights under {' and '.join(filled)}; expected one")
        if not inner:
            break
        content = next(iter(inner.values()))
    items = content.items() if isinstance(content, Mapping) else ()
    state = {
        name: value for name, value in items if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not state:
        raise UserError(
            f"{path}: found no state dict; expected tensors by name, alone or under one of these"
            f" keys: {', '.join(CONTAINERS)}"
        )
    return state


def few(names: Sequence[str], number: int = 3) -> str:
    """Return the first names as a list in words, with the number of further names."""
    more = len(names) - number
    return ", ".join(map(_printable, names[:number])) + (f" and {more} more" if more > 0 else "")


def _printable(text: str) -> str:
    """Return foreign text on one line, without control characters, cut to 120 characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:120])


def _refusal(path: Path, what: str) -> str:
    texts = _strings(path)
    key = next((key for key in CONTAINERS if key in texts), CONTAINERS[0])
    return (
        f"{path}: refused, because reading it requires more than plain weights: {what}. Nothing in"
        f" it was run; {_EXPECTED}; hint: if you trust the file, save its weights alone:"
        f" x = torch.load({str(path)!r}, weights_only=False);"
        f" x = x.get({key!r}, x) if isinstance(x, dict) else x;"
        " torch.save(x.state_dict() if hasattr(x, 'state_dict') else x, 'weights.pt')"
    )


def _strings(path: Path) -> set[str]:
    """Return the texts in a checkpoint's pickles, those before any damage or tensors."""
    texts: set[str] = set()
    with suppress(Exception):  # as in `_globals`
        stream = io.BytesIO(_pickled(path))
        while stream.tell() < len(stream.getbuffer()):  # an older format has several
            texts.update(str(argument) for _, argument, _ in pickletools.genops(stream))
    return texts


def _offender(path: Path, message: str) -> str:
    """Return the global that torch refused to unpickle; if it names none, the file's first ones."""
    if named := re.search(r"GLOBAL (\S+)", message):
        return _printable(named[1])
    if names := [name for name in dict.fromkeys(_globals(path)) if not PLAIN.fullmatch(name)]:
        return few(names)
    lines = [line for line in message.splitlines() if line and "torch.load" not in line]
    return _printable(lines[-1] if lines else message)


def _globals(path: Path) -> list[str]:
    """Return the globals named in a pickle before any damage, from its opcodes without running."""
    names: list[str] = []
    # Strings in the order in which they are pushed; a STACK_GLOBAL takes its names from the last.
    texts: list[str] = []
    memo: list[str] = []
    with suppress(Exception):  # pickletools raises almost any exception for a damaged pickle
        for opcode, argument, _ in pickletools.genops(_pickled(path)):
            if opcode.name == "GLOBAL":
                names.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.append(".".join(texts[-2:]))
            elif opcode.name == "MEMOIZE":
                memo.append(texts[-1] if texts else "")
            elif opcode.name in ("BINGET", "LONG_BINGET") and cast(int, argument) < len(memo):
                texts.append(memo[cast(int, argument)])
            elif isinstance(argument, str):
                texts.append(argument)
    return names


def _pickled(path: Path) -> bytes:
    """Return the pickle in a checkpoint, from a zip archive or an older format."""
    content = path.read_bytes()
    if not content.startswith(_ZIP):  # `zipfile` would find an archive at its end, a bomb perhaps
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
