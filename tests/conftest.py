"""Set the levels of the suite and share one Ray, the data sets and a check for leftovers."""

from __future__ import annotations

import functools
import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from typer import testing

from chexseg.analysis.results import StudyResults
from chexseg.data import remote_path
from chexseg.data.remote_path import RemotePath
from chexseg.run import local_ray
from tests.analysis.synthetic_study import build_study
from tests.leftovers import Leftovers, listening_ports
from tests.store.places import open_store

# Tests share few cores with Ray's workers: one thread per process is faster than several, and
# those of a stage that has several should leave a core to others while they wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# One token for each Ray of the session. Set before Ray is imported, which reads the mode then.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": local_ray.new_token()}
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # tests that use Ray say so by their fixture

# The same cases in every run, without a clock: CI must be repeatable.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, max_examples=30
)
hypothesis.settings.load_profile("repeatable")

# Typer makes all commands anew for each call, a third of many a call's time.
testing._get_command = functools.cache(testing._get_command)

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"

#: Fixtures that start Ray or a server: their tests are not in `make test-fast`.
HEAVY_FIXTURES = {"ray_session", "s3"}
#: Seconds above which a test is named at the end of a run, unless it is marked slow.
LONG = 20
LEFTOVERS = pytest.StashKey[Leftovers]()
#: Environment variable of a session that a test starts.
NESTED = "CHEXSEG_NESTED_TESTS"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = set()
    for item in items:
        if HEAVY_FIXTURES.intersection(item.fixturenames):
            item.add_marker("heavy")
        if item.get_closest_marker("slow"):
            slow.add(item.path)
    # The short files last, so that processes of the suite end at about the same time.
    items.sort(key=lambda item: item.path not in slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    long = [
        report
        for report in reports
        if getattr(report, "when", "") == "call" and report.duration > LONG
    ]
    unmarked = [report for report in long if "slow" not in report.keywords]
    if unmarked:
        terminalreporter.section(f"tests of more than {LONG} s that are not marked slow")
        for report in unmarked:
            terminalreporter.write_line(f"{report.duration:.0f} s  {report.nodeid}")


def pytest_sessionstart(session: pytest.Session) -> None:
    # One check for all of pytest-xdist's processes, and for sessions that tests start.
    if not hasattr(session.config, "workerinput") and NESTED not in os.environ:
        session.config.stash[LEFTOVERS] = Leftovers()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if LEFTOVERS in session.config.stash:
        leftovers = session.config.stash[LEFTOVERS]
        left = leftovers.wait()
        leftovers.close()
        if left:
            writer = session.config.get_terminal_writer()
            writer.line("\n\nthis test session has left behind:\n" + "\n".join(left), red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def no_port_left_open():
    """Check for open ports; set up before all other fixtures, so checked after they have ended."""
    before = listening_ports()
    yield
    assert listening_ports() == before


@pytest.fixture(scope="session", autouse=True)
def copies(no_port_left_open, tmp_path_factory):
    """Return this session's directory for copies of object stores.

    It is set before Ray starts, so that Ray's workers use it too.
    """
    os.environ["CHEXSEG_CACHE"] = str(tmp_path_factory.mktemp("copies"))


@pytest.fixture(scope="session")
def s3():
    """Serve S3 on loopback with one bucket.

    ``s3(prefix)`` is a URI; ``s3.requests()`` returns the requests since the last call.
    """
    server = pytest.importorskip("moto.server")
    from pyarrow import fs

    log = Requests()
    logger = logging.getLogger("werkzeug")
    logger.setLevel(logging.INFO)
    logger.addHandler(log)
    logger.propagate = False
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=True)
    running.start()
    host, port = running.get_host_and_port()
    log.options = f"?endpoint_override={host}%3A{port}&scheme=http"
    made, _ = fs.FileSystem.from_uri(
        f"s3://any:secret@bucket{log.options}&allow_bucket_creation=true"
    )
    made.create_dir("bucket")
    yield log
    running.stop()
    logger.removeHandler(log)


class Requests(logging.Handler):
    """Record the requests that a server under test logs."""

    options = ""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def __call__(self, prefix: str) -> str:
        return f"s3://any:secret@bucket/{prefix}{self.options}"

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def requests(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


@pytest.fixture(scope="session")
def ray_session():
    """Start a local Ray as a run does, with a small object store and no dashboard.

    It is stopped at the session's end. Emulated clusters inherit its certificate, and listen at
    this machine's own address.
    """
    from ray._private import services

    local_ray.ADDRESSES.append(services.node_ip_address_from_perspective(None))
    with local_ray.local_ray(
        num_cpus=len(os.sched_getaffinity(0)) + 1,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        _system_config={
            "metrics_report_interval_ms": 1000
        },  # the default 10 s are long for a test that waits for them
    ):
        yield


@pytest.fixture(scope="session")
def phantom_root(tmp_path_factory) -> Path:
    """Return a small synthetic data set: 48 training, 24 validation and 16 test images.

    Their short side is 64 pixels.
    """
    from chexseg.phantom import dataset

    root = tmp_path_factory.mktemp("phantom") / "data"
    dataset.write(root, dataset.Config(train=48, valid=24, test=16, size=64))
    return root


@pytest.fixture(scope="session")
def uploaded(s3) -> Callable[[Path, str], RemotePath]:
    """Return ``uploaded(directory, prefix)``, which copies a directory to the S3 server."""
    from chexseg.store.uris import connect

    def upload(directory: Path, prefix: str) -> RemotePath:
        place = connect(s3(prefix), "upload")
        for path in filter(Path.is_file, directory.rglob("*")):
            with place.files.open_output_stream(
                f"{place.path}/{path.relative_to(directory)}", compression=None
            ) as stream:
                stream.write(path.read_bytes())
        return remote_path.at(s3(prefix))

    return upload


@pytest.fixture(scope="session")
def phantom_uri(uploaded, phantom_root) -> str:
    """Return the small synthetic data set on the S3 server."""
    return uploaded(phantom_root, "phantom").uri


@pytest.fixture(scope="session")
def covid_root() -> Path:
    """Return the small real data set beside the repository."""
    root = SHARED / "covid-cxr"
    if not root.is_dir():
        pytest.skip("../shared/covid-cxr is not beside this checkout")
    return root


@pytest.fixture(scope="session")
def write_dicom() -> Callable[..., Path]:
    """Return ``write_dicom(path, stored_HW, photometric, **elements)``.

    It writes a digital radiograph of 12 bits and returns its path.
    """
    pydicom = pytest.importorskip("pydicom")

    def write(
        path: Path, stored_HW: np.ndarray, photometric: str = "MONOCHROME2", **elements: Any
    ) -> Path:
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


@pytest.fixture(scope="session")
def study() -> StudyResults:
    return build_study()


@pytest.fixture(scope="session")
def build():
    """Return the builder, for studies of other shapes."""
    return build_study


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.heavy)])
def place(request, tmp_path) -> str:
    """Return where a new store may be: a directory, or a prefix of an S3 bucket."""
    if request.param == "directory":
        return str(tmp_path / "store")
    return request.getfixturevalue("s3")(f"stores/{uuid.uuid4().hex}")


@pytest.fixture
def store(place):
    return open_store(place)
