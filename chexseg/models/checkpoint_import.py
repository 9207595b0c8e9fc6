"""Foreign checkpoints: read without running anything that is in them, their names mapped onto our encoders.

Read are safetensors, and torch's own formats as far as ``torch.load(weights_only=True)`` reads them: tensors and plain
containers. Whatever would have to be called to be unpickled is refused by name.
"""

from __future__ import annotations

import hashlib
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from chexseg.errors import UserError
from chexseg.models import encoders

#: Under which of its keys a checkpoint may keep its state dict; a file without any of them is a state dict itself.
CONTAINERS = ("state_dict", "model_state_dict", "model", "network", "net")
#: What may stand before an encoder's names: MoCo-CXR's query encoder (trained in parallel), CheXpert's in Lightning,
#: common wrappers, and nothing, as torchvision and timm have it.
PREFIXES = (
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
#: Older DenseNets of torchvision: ``denselayer1.norm.1.weight`` for what is now ``denselayer1.norm1.weight``.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
#: A counter of the batch normalisation that only a momentum of None reads; old files lack it.
_COUNTER = "num_batches_tracked"
#: What a file of plain weights names too.
_PLAIN = re.compile(r"collections\.OrderedDict|torch\._utils\._rebuild_\w+|torch\.\w+Storage")
_ALLOWED = "allowed: tensors in plain dictionaries and lists, as safetensors or by torch.save"


@dataclass(frozen=True)
class ForeignEncoder:
    """weights: the names, shapes and types of ``encoders.build(architecture).state_dict()``, complete.

    prefix: what stood before the names in the file. matched: how many tensors came from there. ignored: the file's other
    tensors (heads, a momentum encoder, a queue).
    """

    architecture: str
    weights: Mapping[str, Tensor]
    prefix: str
    matched: int
    ignored: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Of the weights alone, not of the file: the same weights under other names are the same encoder."""
        digest = hashlib.sha256()
        for name, value in sorted(self.weights.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.numpy().tobytes())
        return digest.hexdigest()


def read(path: Path) -> Any:
    """What a checkpoint holds: tensors, numbers and text in dictionaries and lists. Nothing of it is run.

    Raises `UserError` for what isn't there or is damaged, and for a file that would need unpickling beyond that.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; allowed: a checkpoint")
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch warns of protocols and TorchScript on more than one line
            return torch.load(path, weights_only=True, map_location="cpu")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except pickle.UnpicklingError as error:
        raise UserError(_refusal(path, _offender(path, str(error)))) from None
    except (
        Exception
    ) as error:  # torch's readers raise nearly anything for bytes that they didn't write
        if found := re.search(r"weights_only=True\W* with (.+?)(?: passed|\. |$)", str(error)):
            raise UserError(
                _refusal(path, found[1])
            ) from None  # TorchScript, and torch's old tar files
        reason = " ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise UserError(
            f"{path}: damaged, or no file of weights ({_shown(reason)}); {_ALLOWED}"
        ) from None


def encoder(path: Path, architecture: str) -> ForeignEncoder:
    """The weights of an encoder of segmentation-models-pytorch from a checkpoint in any of the names of `PREFIXES`.

    Raises `UserError` where the file can't be read (`read`), where a tensor is missing or has another shape, and where
    there are more layers than the architecture has: a resnet34 has all of a resnet18's names.
    """
    with torch.device("meta"):  # only names, shapes and types are wanted
        target = encoders.build(architecture).state_dict()
    state = _state_dict(path, read(path))

    def under(prefix: str) -> dict[str, str]:
        """The encoder's name of a tensor -> the file's."""
        return {
            _OLD_DENSENET.sub(r"\1\2", name[len(prefix) :]): name
            for name in state
            if name.startswith(prefix)
        }

    prefix = max(PREFIXES, key=lambda prefix: len(under(prefix).keys() & target.keys()))
    names = under(prefix)
    allowed = f"allowed: the weights of a {architecture}, or another --architecture"
    missing = [name for name in target if name not in names and not name.endswith(_COUNTER)]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} tensors of a {architecture} are missing ({few(missing)}); found {few(list(state))};"
            f" {allowed}"
        )
    roots = {name.partition(".")[0] for name in target}
    extra = [
        names[name] for name in names if name not in target and name.partition(".")[0] in roots
    ]
    if extra:
        raise UserError(
            f"{path}: found layers that a {architecture} has not ({few(extra)}); {allowed}"
        )
    weights = {}
    for name, like in target.items():
        if name not in names:
            weights[name] = torch.zeros(like.shape, dtype=like.dtype)
            continue
        value, place = state[names[name]], f"{path}: {_shown(names[name])}"
        if value.shape != like.shape:
            raise UserError(
                f"{place}: found shape {tuple(value.shape)}, a {architecture} has {tuple(like.shape)}; {allowed}"
            )
        plain = (
            value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
        )
        if not plain or value.is_floating_point() != like.is_floating_point():
            raise UserError(
                f"{place}: found a tensor of {value.dtype}, {value.layout}; allowed: plain {like.dtype}"
            )
        weights[name] = value.detach().to(like.dtype).contiguous()
        if not weights[name].isfinite().all():
            raise UserError(f"{place}: found values that are not finite; allowed: finite ones")
    used = {names[name] for name in target if name in names}
    return ForeignEncoder(
        architecture, weights, prefix, len(used), tuple(name for name in state if name not in used)
    )


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, wherever in it they are kept."""
    for _ in CONTAINERS:  # a bound: a file can hold itself
        inner = [
            content[key]
            for key in CONTAINERS
            if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)
        ]
        if not inner:
            break
        content = inner[0]
    state = content.items() if isinstance(content, Mapping) else ()
    found = {
        name: value for name, value in state if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not found:
        raise UserError(
            f"{path}: found no state dict; allowed: tensors by name, alone or under {', '.join(CONTAINERS)}"
        )
    return found


def few(names: Sequence[str], number: int = 3) -> str:
    """The first names of a file, and how many more there are."""
    more = len(names) - number
    return ", ".join(map(_shown, names[:number])) + (f" and {more} more" if more > 0 else "")


def _shown(text: str) -> str:
    """A foreign file's words as a terminal may have them: one line, no control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:120])


def _refusal(path: Path, what: str) -> str:
    return (
        f"{path}: refused, for reading it needs more than plain weights: {what}. Nothing of it ran; {_ALLOWED}. From a file"
        " that you trust, save the weights alone, on a machine that may run it:"
        f" torch.save(torch.load({path.name!r}, weights_only=False)['state_dict'], 'weights.pt')"
    )


def _offender(path: Path, message: str) -> str:
    """What torch has refused to unpickle: the global's name, or where torch names none, the file's own first ones."""
    if named := re.search(r"GLOBAL (\S+)", message):
        return _shown(named[1])
    if found := [name for name in dict.fromkeys(_globals(path)) if not _PLAIN.fullmatch(name)]:
        return few(found)
    return _shown(
        next(
            (line for line in reversed(message.splitlines()) if line and "torch.load" not in line),
            message,
        )
    )


def _globals(path: Path) -> list[str]:
    """The globals that a pickle names, read from its opcodes without running them, as far as it can be parsed."""
    found: list[str] = []
    texts: list[
        str
    ] = []  # as they are pushed: the last two before a STACK_GLOBAL are its module and its name
    memo: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(_pickled(path)):
            if opcode.name == "GLOBAL":
                found.append(argument.replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                found.append(".".join(texts[-2:]))
            elif opcode.name == "MEMOIZE":
                memo.append(texts[-1] if texts else "")
            elif opcode.name in ("BINGET", "LONG_BINGET") and argument < len(memo):
                texts.append(memo[argument])
            elif isinstance(argument, str):
                texts.append(argument)
    except (
        Exception
    ):  # a file that isn't a pickle to its end: what it has named so far is all there is to say
        return found
    return found


def _pickled(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
