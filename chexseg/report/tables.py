"""Tables: one function computes the rows of each (numbers), four write any of them (markdown, csv, html, terminal)."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chexseg.report import published
from chexseg.report.published import AVERAGE, METHODS, css_name
from chexseg.report.results import StudyResults, once
from chexseg.report.statistics import Arm, Interval, arms, cell_iou, miou, t_interval

SHARED = "no weak labels at p = 1: one value for both methods"
UNFINISHED = "no finished cell"
NO_EXPERT = "no expert mask in the test set"
#: The stages in the order of the data's way.
STAGES = ("ingest", "classify", "pretrain", "moco", "imported", "saliency", "irnet", "fit", "distil", "score")
#: Of more variants a study's Table 1 isn't written: nobody reads hundreds.
MOST_VARIANTS = 20


@dataclass(frozen=True)
class Variant:
    """Settings that Table 1 and Figure 2 hold fixed; a study may have several."""

    init: str
    epochs: float
    weak_images: float  # NaN where only fully supervised cells exist
    other: str = ""  # what else the study varies, as in CELL_COLUMNS

    def has(self, arm: Arm) -> bool:
        """Whether the arm belongs here; one without weak labels does, whatever is said of weak labels."""
        words, mine = set(arm.other.split()), set(self.other.split())
        return (
            arm.method != "student"
            and arm.init == self.init
            and same(arm.epochs, self.epochs)
            and (words <= mine if arm.method == "full" else words == mine and same(arm.weak_images, self.weak_images))
        )

    def __str__(self) -> str:
        parts = [f"encoder {self.init}"]
        parts += [f"{self.weak_images:,.0f} weak images"] if not np.isnan(self.weak_images) else []
        parts += [f"{self.epochs:g} epochs"] if not np.isnan(self.epochs) else []
        return ", ".join(parts + self.other.split())


def same(first: float, second: float) -> bool:
    return first == second or (np.isnan(first) and np.isnan(second))


def variants(results: StudyResults) -> list[Variant]:
    """The study's variants, those with most arms first."""
    return [variant for variant, _ in _variant_arms(results).values()]


def variant_arms(results: StudyResults, variant: Variant | None) -> list[Arm]:
    """The arms of a variant, in the study's order."""
    found = _variant_arms(results).get(str(variant))
    return found[1] if found else [arm for arm in arms(results) if variant is not None and variant.has(arm)]


@once
def _variant_arms(results: StudyResults) -> dict[str, tuple[Variant, list[Arm]]]:
    """Text -> variant and its arms, those with most first. The text stands for NaN, which equals nothing."""
    found = arms(results)
    trained = [arm for arm in found if arm.method in ("weak", "mixed")] or [arm for arm in found if arm.method == "full"]
    unique = {str(v): v for v in (Variant(arm.init, arm.epochs, arm.weak_images, arm.other) for arm in trained)}
    # Of 10,000 cells every variant would ask every arm: so only those are asked whose further settings fit.
    others: dict[frozenset[str], list[Arm]] = {}
    full: dict[frozenset[str], list[Arm]] = {}
    for arm in found:
        (full if arm.method == "full" else others).setdefault(frozenset(arm.other.split()), []).append(arm)
    own = {}
    for text, variant in unique.items():
        mine = frozenset(variant.other.split())
        asked = [*others.get(mine, ()), *(arm for words, group in full.items() if words <= mine for arm in group)]
        own[text] = variant, sorted(filter(variant.has, asked), key=lambda arm: min(arm.indices))
    return dict(sorted(own.items(), key=lambda item: -len(item[1][1])))


@once
def task_values(results: StudyResults) -> dict[str, np.ndarray]:
    """Task -> values_C of every cell: mIoU under "Avg. IoU", then each pathology's IoU."""
    iou_CK = cell_iou(results)
    return {AVERAGE: miou(iou_CK)[0], **{name: iou_CK[:, k] for k, name in enumerate(results.pathologies)}}


def table1_rows(results: StudyResults, variant: Variant | None = None) -> pd.DataFrame:
    """The paper's Table 1 for this study: task, method, for each p the mean, its 95% interval, n and the paper's value.

    Columns of one p: ``p=0.9``, and the same followed by `` low``, `` high``, `` cells`` (as from `cell_keys`), `` n``,
    `` paper`` and `` reason`` (why there is no value). ``best`` names the p with the row's highest mean. At p = 1 both methods
    have one value, and the reason says so.
    """
    values = task_values(results)
    variant = variant or next(iter(variants(results)), None)
    chosen = variant_arms(results, variant)
    columns = sorted({arm.p for arm in chosen})
    # A study without weak labels has one row a task, called by what it has.
    methods = {k: name for k, name in METHODS.items() if any(arm.weak == k for arm in chosen)} or {"cam": "Full"}
    positives = (
        results.counts_CIK3[0, :, :, 2].sum(axis=0) > 0 if len(results.cells) else np.zeros(len(results.pathologies), bool)
    )
    rows = []
    for task, values_C in values.items():
        for method in methods:
            row: dict[str, object] = {"task": task, "method": methods[method], "best": None}
            means = {}
            for p in columns:
                shared = p == 1 and method != next(iter(methods))
                arm = next((a for a in chosen if a.p == p and (a.weak == method or a.method == "full")), None)
                cell = t_interval(values_C[list(arm.indices)] if arm else [])
                absent = task in results.pathologies and not positives[results.pathologies.index(task)]
                reason = UNFINISHED if arm is None else NO_EXPERT if np.isnan(cell.mean) else None
                reason = SHARED if shared else NO_EXPERT if absent else reason
                means[label(p)] = cell.mean
                if task == AVERAGE:
                    paper = published.table1_average(results.pathologies, method, p)
                else:
                    paper = published.table1(task, method, p)
                row |= {label(p): cell.mean, f"{label(p)} low": cell.low, f"{label(p)} high": cell.high}
                row |= {
                    f"{label(p)} cells": cell_keys(results, arm.indices) if arm else "",
                    f"{label(p)} n": cell.n,
                    f"{label(p)} paper": np.nan if paper is None else paper,
                    f"{label(p)} reason": reason,
                }
            known = {name: mean for name, mean in means.items() if not np.isnan(mean)}
            row["best"] = max(known, key=known.__getitem__) if known else None
            rows.append(row)
    return pd.DataFrame(rows)


def cell_keys(results: StudyResults, indices: Iterable[int]) -> str:
    """The way back from a number: the first 12 characters of its cells' keys, with spaces between."""
    keys = _short_keys(results)
    return " ".join(keys[index] for index in indices)


@once
def _short_keys(results: StudyResults) -> list[str]:
    return [key[:12] for key in results.cells["cell"]]


def label(p: float) -> str:
    return f"p={p:g}"


@once
def cells_rows(results: StudyResults) -> pd.DataFrame:
    """One row a cell: its settings, mIoU, mIoU on the selection images, the IoU of each pathology, its key."""
    iou_CK = cell_iou(results)
    miou_C, left_out_C = miou(iou_CK)
    cells = results.cells.reset_index(drop=True)
    frame = cells[["name", "method", "weak", "p", "trial", "init", "weak_images", "fraction"]].copy()
    frame = frame.drop(columns=[name for name in ("weak_images", "fraction") if frame[name].isna().all()])
    frame["mIoU"], frame["selection mIoU"] = miou_C, pd.to_numeric(cells["selection_miou"])
    if left_out_C.any():
        frame["left out"] = left_out_C
    for k, name in enumerate(results.pathologies):
        frame[name] = iou_CK[:, k]
    frame["key"] = cells["cell"]
    return frame


@once
def students_rows(results: StudyResults) -> pd.DataFrame:
    """Students against their teacher by fraction of the training images (Figure 3): means, intervals, paired difference.

    The teacher of a student is the fully supervised cell of the same encoder and trial (section 4.2), and of the same of
    whatever else the study varies.
    """
    found, miou_C = arms(results), miou(cell_iou(results))[0]
    rows = []
    full = [(other, frozenset(other.other.split())) for other in found if other.method == "full"]
    for arm in sorted((a for a in found if a.method == "student"), key=lambda a: (a.init, a.fraction)):
        mine = frozenset(arm.other.split())
        teachers = {
            trial: miou_C[index]
            for other, words in full
            if other.init == arm.init and words <= mine
            for trial, index in zip(other.trials, other.indices, strict=True)
        }
        paired = [(miou_C[i], teachers[t]) for t, i in zip(arm.trials, arm.indices, strict=True) if t in teachers]
        row: dict[str, object] = {"init": arm.init, "fraction": arm.fraction}
        row |= _columns("student", t_interval(miou_C[list(arm.indices)]))
        row |= _columns("teacher", t_interval([teacher for _, teacher in paired]))
        row |= _columns("difference", t_interval([student - teacher for student, teacher in paired]))
        row |= {"n": len(arm.indices), "cells": cell_keys(results, arm.indices)}
        row["reason"] = None if paired else "no fully supervised cell of the same encoder and trial has finished"
        rows.append(row)
    return pd.DataFrame(rows)


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name} low": interval.low, f"{name} high": interval.high}


def stages_rows(results: StudyResults) -> pd.DataFrame:
    """Time by stage, in the order of the data's way: runs, total, median and longest seconds, hosts."""
    rows = []
    rank = {name: index for index, name in enumerate(STAGES)}
    for stage, group in results.stages.groupby("stage"):
        seconds = pd.to_numeric(group["seconds"])
        row = {"stage": stage, "runs": len(group), "total s": seconds.sum(), "median s": seconds.median()}
        rows.append(row | {"longest s": seconds.max(), "hosts": ", ".join(sorted(set(group["host"].astype(str))))})
    return pd.DataFrame(sorted(rows, key=lambda row: (rank.get(row["stage"], len(rank)), row["stage"])))


def missing_rows(results: StudyResults) -> pd.DataFrame:
    """One row a cell without scores: name, state, reason."""
    return results.missing[["name", "state", "reason"]].reset_index(drop=True)


# ---- writing -----------------------------------------------------------------------------------------------------------


def to_csv(rows: pd.DataFrame) -> str:
    """All columns at full precision."""
    return rows.to_csv(index=False)


def to_markdown(rows: pd.DataFrame) -> str:
    """A pipe table; Table 1 with its best values in bold."""
    cells, columns = _text(rows.drop(columns="cells", errors="ignore"), bold="**{}**")
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in cells]
    lines = ["| " + " | ".join(line) + " |" for line in [columns, ["---"] * len(columns), *escaped]]
    return "\n".join(lines) + "\n" + "".join(f"\n{note}\n" for note in _notes(rows, "bold"))


def to_terminal(rows: pd.DataFrame, width: int = 120) -> str:
    """Aligned plain text; Table 1 in blocks of as many p as fit `width` characters."""
    if not _is_table1(rows):
        cells, columns = _text(rows)
        return "\n".join(_aligned([columns, *cells]))
    p_columns = _p_columns(rows)
    cells, columns = _text(rows, bold="{}*")
    per_block = max(1, (width - 34) // 21)
    lines: list[str] = []
    for start in range(0, max(1, len(p_columns)), per_block):
        keep = [0, 1, *range(2 + start, 2 + min(start + per_block, len(p_columns)))]
        lines += ([""] if lines else []) + _aligned([[line[j] for j in keep] for line in [columns, *cells]])
    return "\n".join(lines + [""] + _notes(rows, "*"))


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[j]) for line in lines) for j in range(len(lines[0]))]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return [padded[0], "-" * max(map(len, padded)), *padded[1:]]


def to_html(rows: pd.DataFrame) -> str:
    """A ``<table>``, which the page's script makes sortable; Table 1 with interval and the paper's value beneath each value."""
    if _is_table1(rows):
        return _table1_html(rows)
    cells, columns = _text(rows)
    numeric = [pd.api.types.is_numeric_dtype(rows[name]) for name in columns]
    head = "".join(
        f"<th{_class(number)}>{html.escape(name.replace('_', ' '))}</th>" for name, number in zip(columns, numeric, strict=True)
    )
    body = []
    for line, row in zip(cells, rows.to_dict("records"), strict=True):
        out = []
        for text, name, number in zip(line, columns, numeric, strict=True):
            if name in ("key", "cells"):
                number_of = len(text.split())
                shown = text[:12] if name == "key" else f"{number_of} cell{'' if number_of == 1 else 's'}"
                out.append(f'<td class="key">{way_html(f"<code>{html.escape(shown)}</code>", text)}</td>')
            else:
                value = f' data-value="{row[name]}"' if number and not pd.isna(row[name]) else ""
                shown = way_html(html.escape(text), row.get("key", "")) if name == "mIoU" else html.escape(text)
                out.append(f"<td{_class(number)}{value}>{shown}</td>")
        body.append("<tr>" + "".join(out) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def way_html(text: str, keys: str) -> str:
    """A value that the page's script leads to the runs behind it. `keys`: as from `cell_keys`."""
    shortened = " ".join(key[:12] for key in keys.split())
    return f'<button class="way" data-cells="{html.escape(shortened)}">{text}</button>' if shortened else text


def _class(number: bool) -> str:
    return ' class="number"' if number else ""


def _is_table1(rows: pd.DataFrame) -> bool:
    return list(rows.columns[:3]) == ["task", "method", "best"]


def _p_columns(rows: pd.DataFrame) -> list[str]:
    return [name for name in rows.columns if name.startswith("p=") and " " not in name]


def _text(rows: pd.DataFrame, bold: str = "{}") -> tuple[list[list[str]], list[str]]:
    """(cells as text, column names). Intervals join their mean as ±, the paper's value follows in brackets."""
    if _is_table1(rows):
        columns = _p_columns(rows)
        lines = []
        for index, row in rows.iterrows():
            repeated = index > 0 and rows.loc[index - 1, "task"] == row["task"]
            cells = [_table1_text(row, name, bold) for name in columns]
            lines.append(["" if repeated else row["task"], row["method"], *cells])
        return lines, ["Task", "Method", *columns]
    columns = [name for name in rows.columns if not name.endswith((" low", " high"))]
    lines = [[_value(row, name) for name in columns] for row in rows.to_dict("records")]
    return lines, columns


def _table1_text(row: pd.Series, column: str, bold: str) -> str:
    if row[f"{column} reason"] == SHARED:
        return "as above"
    if pd.isna(row[column]):
        return "-"
    text = f"{row[column]:.3f}"
    text = bold.format(text) if row["best"] == column else text
    # No zero before the point of what follows: four p values must fit a terminal.
    text += f" ±{_bare(half(row, column))}" if not np.isnan(half(row, column)) else ""
    return text + (f" ({_bare(row[f'{column} paper'])})" if not pd.isna(row[f"{column} paper"]) else "")


def _bare(value: float) -> str:
    """Four characters: .123 or, from 1 on, 1.23."""
    return f"{value:.3f}".removeprefix("0") if value < 0.9995 else f"{value:.2f}"


def half(row: Mapping[str, Any], column: str) -> float:
    """Half the width of a row's interval; NaN without one."""
    return (row[f"{column} high"] - row[f"{column} low"]) / 2


def _value(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return "-" if name != "reason" else ""
    if isinstance(value, float | np.floating):
        if name.endswith(" s") or name == "seconds":
            return f"{value:,.1f}"
        if name in ("p", "fraction", "weak_images", "epochs"):
            return f"{value:g}"
        text = f"{value:+.3f}" if name == "difference" else f"{value:.3f}"
        bounded = f"{name} low" in row and not pd.isna(row[f"{name} low"])
        return text + (f" ±{half(row, name):.3f}" if bounded else "")
    return str(value)


def _notes(rows: pd.DataFrame, mark: str) -> list[str]:
    """What the marks mean, and why cells are empty; nothing for tables without marks."""
    if not _is_table1(rows):
        return []
    return [f"{mark}: best of the row. ±: 95% t-interval over trials. In brackets: the paper (Table 1).", *gaps(rows)]


def gaps(rows: pd.DataFrame) -> list[str]:
    """Why cells of Table 1 hold a dash, one line a reason."""
    found: dict[str, list[str]] = {}
    for _, row in rows.iterrows():
        for name in _p_columns(rows):
            if row[f"{name} reason"] not in (None, SHARED) and pd.isna(row[name]):
                where = row["task"] if row[f"{name} reason"] == NO_EXPERT else f"{row['method']} {name}"
                found.setdefault(row[f"{name} reason"], []).append(where)
    return [f"-: {reason}: {', '.join(dict.fromkeys(where))}." for reason, where in found.items()]


def _table1_html(rows: pd.DataFrame) -> str:
    columns = _p_columns(rows)
    methods = rows["method"].nunique()
    ends = {"p=0": "weak", "p=1": "full"}
    head = "".join(
        f'<th class="number">{name.replace("p=", "<i>p</i> = ")}<small>{ends.get(name, "&nbsp;")}</small></th>'
        for name in columns
    )
    body = []
    for start in range(0, len(rows), methods):
        group = rows.iloc[start : start + methods]
        for offset, (_, row) in enumerate(group.iterrows()):
            out = [f'<th scope="rowgroup" rowspan="{methods}">{html.escape(row["task"])}</th>'] if offset == 0 else []
            out.append(f'<td class="method {css_name(row["method"].lower())}">{row["method"]}</td>')
            for name in columns:
                if row[f"{name} reason"] == SHARED:
                    continue
                shared = name == "p=1"
                best = (group["best"] == name).any() if shared else row["best"] == name
                out.append(_table1_cell(row, name, methods if shared else 1, bool(best)))
            kind = "first average" if row["task"] == AVERAGE and offset == 0 else "first" if offset == 0 else ""
            body.append(f'<tr class="{kind}">' + "".join(out) + "</tr>")
    return (
        f'<table class="table1"><thead><tr><th>Task</th><th>Method</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def _table1_cell(row: pd.Series, name: str, rowspan: int, best: bool) -> str:
    span = f' rowspan="{rowspan}"' if rowspan > 1 else ""
    paper = row[f"{name} paper"]
    beneath = "" if pd.isna(paper) else f'<span class="paper">{paper:.3f}</span>'
    if pd.isna(row[name]):
        reason = html.escape(str(row[f"{name} reason"]))
        return f'<td class="number"{span}><abbr title="{reason}">–</abbr><span class="interval"></span>{beneath}</td>'
    value = way_html(f"<b>{row[name]:.3f}</b>" if best else f"{row[name]:.3f}", row[f"{name} cells"])
    width = half(row, name)
    interval = "" if np.isnan(width) else f"±{_bare(width)}"
    return f'<td class="number"{span}>{value}<span class="interval">{interval}</span>{beneath}</td>'
