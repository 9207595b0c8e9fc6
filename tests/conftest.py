"""One Ray for the whole test session, and where the shared data sets are."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Tests share the machine's few cores with Ray's workers; one thread a process is faster than several that fight.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.fixture(scope="session")
def ray_session():
    """A local Ray with a small object store in a short directory of its own, stopped at the session's end."""
    import ray

    scratch = tempfile.mkdtemp(prefix="cxr-", dir="/tmp")
    ray.init(
        num_cpus=len(os.sched_getaffinity(0)) + 1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=200 * 2**20,
        _temp_dir=scratch,
    )
    yield
    ray.shutdown()
    shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="session")
def phantom_root(tmp_path_factory) -> Path:
    """A small synthetic data set: 48 training, 24 validation and 16 test images with a short side of 64 pixels."""
    from chexseg.phantom import dataset

    root = tmp_path_factory.mktemp("phantom") / "data"
    dataset.write(root, dataset.Config(train=48, valid=24, test=16, size=64))
    return root


@pytest.fixture(scope="session")
def covid_root() -> Path:
    """The small real data set beside the repository."""
    root = SHARED / "covid-cxr"
    if not root.is_dir():
        pytest.skip("../shared/covid-cxr is not beside this checkout")
    return root


@pytest.fixture(scope="session")
def write_dicom() -> Callable[..., Path]:
    """``write_dicom(path, stored_HW, photometric, **elements)``: a digital radiograph of 12 bits; its path."""
    pydicom = pytest.importorskip("pydicom")

    def write(path: Path, stored_HW: np.ndarray, photometric: str = "MONOCHROME2", **elements: Any) -> Path:
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
        data.SOPInstanceUID = pydicom.uid.generate_uid()
        data.PhotometricInterpretation, data.SamplesPerPixel = photometric, 1
        data.Rows, data.Columns = stored_HW.shape[-2:]
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
        data.PixelData = stored_HW.astype("<u2").tobytes()
        for name, value in elements.items():
            setattr(data, name, value)
        data.save_as(path, enforce_file_format=True)
        return path

    return write
