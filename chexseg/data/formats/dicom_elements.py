"""Read the elements of a DICOM file that its pixels need, in bounded memory and time.

pydicom skips all others and leaves long values in the file. Some it reads all the same: the file
meta group, and whatever has an undefined length, down to the last nested element. It expands an
element of 8 bytes to about 300, and each of several values to about 200. So it reads through a
file that counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from chexseg.data.formats import limits
from chexseg.errors import UserError, printable
from chexseg.store import links

#: Lookup tables: sequences. One of 65,536 grey levels has 128 KiB.
_TABLES = ("ModalityLUTSequence", "VOILUTSequence")
#: All elements that pydicom or we use to decode pixels and to window them.
_USED = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept"),
    *("RescaleType", "WindowCenter", "WindowWidth", "VOILUTFunction", *_TABLES),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData"),
)
#: Elements after which no image is looked for: those that hold most of a DICOMDIR and of a
#: report (DirectoryRecordSequence, ContentSequence), and PixelData.
_LAST = (0x00041220, 0x0040A730, 0x7FE00010)
#: Length of an element without one: its end is marked.
UNDEFINED = 0xFFFFFFFF
#: Bytes of an element's tag, type and length.
_HEADER = 8
#: Elements whose values are parsed while the file is read: the group of the file's meta elements,
#: and the character set (in either order of bytes), which each item of a sequence may have.
_PARSED = (b"\x02\x00", b"\x08\x00\x05\x00", b"\x00\x08\x00\x05")


class Bounded:
    """A file of which pydicom may read only so much; all else raises `UserError`.

    pydicom reads at least once for each element, item and fragment, so the number of times bounds
    their number. It reads without a length only to inflate a deflated file.
    """

    def __init__(self, file: BinaryIO, path: object) -> None:
        self._file, self._path = file, path
        self.tell, self.seek = file.tell, file.seek
        self._header = b""
        self._parsed = limits.MOST_DICOM_PARSED
        self.refusal: UserError | None = None
        self.allow(limits.MOST_DICOM_ELEMENTS, "elements that can't be skipped")

    def allow(self, size: int, what: str) -> None:
        """Allow to read `size` bytes from now on; `what` they are is for the message."""
        self._most = self._left = size
        self._reads, self._what = limits.MOST_DICOM_READS, what

    def read(self, size: int = -1) -> bytes:
        self._reads -= 1
        self._left -= size
        if self._header.startswith(_PARSED) and size != _HEADER:
            self._parsed -= size
        if size < 0:
            self._refuse(
                "a deflated DICOM file, whose inflated size is unbounded",
                "another transfer syntax",
            )
        if self._reads < 0:
            self._refuse(
                "so many DICOM elements, items or fragments that they take more than"
                f" {limits.MOST_DICOM_READS:,} reads"
            )
        if self._left < 0:
            self._refuse(f"{self._what} of more than {self._most:,} bytes")
        if self._parsed < 0:
            self._refuse(
                f"meta elements and character sets of more than {limits.MOST_DICOM_PARSED:,} bytes"
            )
        content = self._file.read(size)
        if size == _HEADER:
            self._header = content
        return content

    def _refuse(self, what: str, expected: str = "fewer") -> None:
        """Raise `UserError`, and keep it: pydicom replaces what is raised within an item."""
        self.refusal = UserError(f"{self._path}: found {what}; expected {expected}")
        raise self.refusal


def holds_image(path: Path) -> bool:
    """Return False for a readable DICOM file without an image, such as a DICOMDIR or a report."""
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    with links.open_regular(path) as file:
        limits.check_file(file, path)
        data = read_partial(
            Bounded(file, path),  # type: ignore[arg-type]  # pydicom needs read, seek and tell
            stop_when=lambda tag, vr, length: tag in _LAST,
            defer_size=limits.LONGEST_DICOM_VALUE,
            force=True,
            specific_tags=[Tag("Rows")],
        )
        return "Rows" in data


def read(file: BinaryIO, path: object) -> Any:
    """Return a data set of the elements that the pixels need; those are still in the file.

    Raises `UserError` for too many elements, and for values too long to be parsed.
    """
    from pydicom import dcmread

    file.seek(0)
    bounded = Bounded(file, path)
    try:
        data = dcmread(
            bounded,
            defer_size=limits.LONGEST_DICOM_VALUE,
            force=True,  # a preamble may be missing (`dicom.recognises`)
            specific_tags=list(_USED),
        )
    except Exception:
        if bounded.refusal:
            raise bounded.refusal from None
        raise
    for name in _USED:
        if name in data and name != "PixelData":
            _check_value(data, name, path)
    return data


def _check_value(data: Any, name: str, path: object) -> None:
    """Raise `UserError` for a value that would take much memory to parse, before it is parsed."""
    element = data.get_item(name, keep_deferred=True)
    is_table = name in _TABLES
    most = limits.LONGEST_DICOM_TABLES if is_table else limits.LONGEST_DICOM_VALUE
    length = getattr(element, "length", UNDEFINED)
    if length == UNDEFINED and is_table:  # its elements have been counted, but not parsed
        parts = (part for item in element.value for part in item.elements())
        length = sum(getattr(part, "length", 0) for part in parts)
    if length > most:
        size = "an undefined length" if length == UNDEFINED else f"{length:,} bytes"
        raise UserError(f"{path}: {name}: found {size}; expected at most {most:,} bytes")


def shown(value: object) -> str:
    """Return a value of the file for a message: a damaged number can be text of any kind."""
    return printable(str(value)[:40])
