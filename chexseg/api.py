"""The Python API: plan and run a study, read its results, predict with its networks.

    import chexseg

    study = chexseg.load_study("study.yaml", data="phantom")
    study.plan()
    study.run()
    study.results()

Everything is also a command (`chexseg --help`). Errors that a user can mend are `UserError`s of
one line; slow imports wait until they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import plotly.graph_objects as go

    from chexseg.analysis.study_analysis import StudyAnalysis
    from chexseg.data.raw_split import RawData
    from chexseg.plan.graph import Plan
    from chexseg.predict.segment import Segmenter
    from chexseg.run.run_record import RunResult
    from chexseg.search.space_plan import Search
    from chexseg.store.store import Store

#: The store of commands and of this API, unless another is named.
DEFAULT_STORE = "chexseg-store"


def load_study(
    path: str | Path,
    *,
    data: str | Path,
    store: str | Path = DEFAULT_STORE,
    overrides: Sequence[str] = (),
) -> Study:
    """Return the study of a file.

    data: CheXpert and CheXlocalize, a directory or a URI. store: where results are, a directory or
    a URI. overrides: ``KEY=VALUE``, as of ``--set``. Raises `UserError` for a file that is no
    study, and for data that can't be read.
    """
    return Study(Path(path), str(data), str(store), tuple(overrides))


@dataclass(frozen=True)
class Study:
    """A study with its data and its store (`load_study`). Each call reads the store anew."""

    path: Path
    data: str
    store: str = DEFAULT_STORE
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._read()

    def plan(self) -> pd.DataFrame:
        """Return one row per stage run, each after its inputs; nothing runs.

        Columns: stage, name, key, state ("cached", "new", "stale", "failed", "running" or
        "unneeded") and expected_seconds. Of a search: the stages before its points, and the points
        tried so far.
        """
        import pandas as pd

        from chexseg import resolve
        from chexseg.plan import cost
        from chexseg.plan.stage_names import stage_names
        from chexseg.plan.status import summarise

        read, store, raw = self._read()
        plan = resolve.planned(read, store)
        summary = summarise(plan, store, cost.images(raw))
        names = stage_names(plan.nodes, plan.cells)
        rows = [
            {
                "stage": node.stage,
                "name": names[key],
                "key": key,
                "state": summary.states[key],
                "expected_seconds": summary.costs[key].seconds,
            }
            for key, node in plan.nodes.items()
        ]
        return pd.DataFrame(rows, columns=["stage", "name", "key", "state", "expected_seconds"])

    def run(
        self,
        only: Sequence[str] = (),
        limit: int | None = None,
        address: str | None = None,
        quiet: bool = False,
    ) -> RunResult:
        """Compute what the store lacks, as ``chexseg study run``; return what was computed.

        only: names of cells, in which ``*`` stands for any text. limit: largest number of missing
        cells. address: of a Ray cluster; None starts a local Ray. Raises `UserError` for mistakes
        before anything runs, and for bad input that a stage meets.
        """
        from chexseg import launch
        from chexseg.progress import reporter

        read, store, raw = self._read()
        with reporter(quiet) as shown:
            return launch.launch(
                read,
                store,
                raw,
                shown,
                address,
                self.path,
                self.overrides,
                only=only,
                limit=limit,
            )

    def results(self, per: Literal["cell", "pathology", "image"] = "cell") -> pd.DataFrame:
        """Return the finished cells' scores on the test images, one value per row.

        Each row has the cell's name and settings (`analysis.results.CELL_COLUMNS`); a column for
        each setting that the study varies, by its name in the file, such as `fit.loss`, empty
        where it doesn't affect the cell; and

        - per cell: `miou`, the mean of its pathologies' IoU;
        - per pathology: `pathology` and `iou`, pooled over the images (section 3.1 of the paper);
          NaN for a pathology without an expert pixel;
        - per image: also `image_id`, the counts of pixels `intersection`, `predicted` and `true`,
          and `iou` of this image; NaN where no pixel is predicted or true.
        """
        import numpy as np
        import pandas as pd

        if per not in ("cell", "pathology", "image"):
            raise ValueError(f"per: found {per!r}; expected cell, pathology or image")
        analysis = self._analysis()
        results, scores = analysis.results, analysis.scores
        cells = results.cells.reset_index(drop=True)
        if results.axes is not None:
            cells = cells.assign(**{name: _typed(results.axes[name]) for name in results.axes})
        if per == "cell":
            return cells.assign(miou=scores.miou_C)
        count, names = len(cells), list(results.pathologies)
        if per == "pathology":
            rows = cells.loc[np.repeat(np.arange(count), len(names))].reset_index(drop=True)
            return rows.assign(pathology=names * count, iou=scores.iou_CK.ravel())
        images = list(results.image_ids)
        index = pd.MultiIndex.from_product(
            [range(count), images, names], names=["", "image_id", "pathology"]
        )
        rows = cells.loc[index.get_level_values(0)].reset_index(drop=True)
        counted = results.counts_CIK3.reshape(-1, 3)
        union = counted[:, 1] + counted[:, 2] - counted[:, 0]
        return rows.assign(
            image_id=index.get_level_values(1),
            pathology=index.get_level_values(2),
            intersection=counted[:, 0],
            predicted=counted[:, 1],
            true=counted[:, 2],
            iou=np.divide(counted[:, 0], union, out=np.full(len(union), np.nan), where=union > 0),
        )

    def figures(self) -> dict[str, go.Figure]:
        """Return name -> plotly figure of all that the study has data for, as in its report."""
        from chexseg.report.figures import study_figures

        return study_figures.draw(self._analysis())

    def _analysis(self) -> StudyAnalysis:
        from chexseg import resolve
        from chexseg.analysis import load
        from chexseg.analysis.study_analysis import analyse

        read, store, raw = self._read()
        return analyse(load.study_results(resolve.planned(read, store), store, raw.root))

    def _read(self) -> tuple[Plan | Search, Store, RawData]:
        from chexseg import resolve
        from chexseg.data import remote_path
        from chexseg.data.raw_split import RawData
        from chexseg.store.store import Store

        store, raw = Store(self.store), RawData(remote_path.at(self.data))
        (read,) = resolve.read([self.path], raw, store, self.overrides)
        return read, store, raw


def load_model(
    name: str | Path, *, data: str | Path | None = None, store: str | Path = DEFAULT_STORE
) -> Model:
    """Return a fitted segmenter, on a GPU if there is one.

    name: ``STUDY.yaml#CELL`` (the name or the beginning of the key of a finished cell, which needs
    `data`), the directory of a fit (``STORE/fit/KEY``), or its URI. Raises `UserError` if there is
    none, and `DamagedArtifactError` for damaged files.
    """
    from chexseg import fitted
    from chexseg.predict import segment

    return Model(segment.load(fitted.find(str(name), data, str(store))))


def _typed(texts: pd.Series) -> list[object]:
    """Return the values of an axis, which are texts or None, as numbers if all are numbers."""
    import pandas as pd

    try:
        return list(pd.to_numeric(texts))
    except ValueError:
        return list(texts)


class Model:
    """A fitted segmenter (`load_model`). pathologies: what it segments."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self.pathologies = segmenter.pathologies

    def predict(self, image: np.ndarray | str | Path) -> Mapping[str, np.ndarray]:
        """Return pathology -> mask_HW (bool) at the image's own resolution.

        image: pixels_HW (uint8, white is dense), or a file: JPEG, PNG, TIFF or DICOM. Raises
        `UserError` for a file that can't be read, and ValueError for other arrays.
        """
        import numpy as np

        from chexseg.data import images
        from chexseg.predict import segment

        if isinstance(image, np.ndarray):
            if image.ndim != 2 or image.dtype != np.uint8 or not image.size:
                raise ValueError(
                    f"image: found {image.dtype} of shape {image.shape};"
                    " expected: uint8 pixels of shape (height, width)"
                )
            pixels_HW = image
        else:
            pixels_HW = images.decode(Path(image))
        (masks_KHW,) = segment.masks(self._segmenter, [pixels_HW])
        return dict(zip(self.pathologies, masks_KHW, strict=True))
