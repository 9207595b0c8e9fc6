"""Find every cell of a study that can't be planned, instead of the first one's mistake."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from chexseg.config.canonical import canonical
from chexseg.config.places import place
from chexseg.config.settings import Settings
from chexseg.config.study import Study
from chexseg.errors import UserError
from chexseg.plan import planner
from chexseg.plan.graph import NoEncoderError, Plan

#: Stands for the digest of an encoder that is missing, so that its cell can be planned.
MISSING = "0" * 64


def plan_of_rest(
    study: Study,
    data: Mapping[str, str],
    imported: Mapping[tuple[str, str], str],
    import_options: str = "",
    shown: Study | None = None,
) -> tuple[Plan, list[str]]:
    """Return the plan of the cells that can be planned, and a line for each mistake of the others.

    A cell that only lacks an encoder is in the plan, which then can't be run. import_options:
    appended to the command that imports one. shown: the study whose lines are named, if not this.
    """
    encoders, faulty = dict(imported), set[Settings]()
    lines: dict[str, None] = {}
    builder = planner.PlanBuilder(Plan(study, encoders, data=data), data)
    for member in study.members or (study,):
        for settings in map(canonical, member.cells()):
            while True:
                try:
                    builder.cell(settings, defaultdict(lambda: 1.0))
                except NoEncoderError as error:
                    encoders[error.encoder] = MISSING
                    lines[_line(shown or member, settings, error) + import_options] = None
                    continue
                except UserError as error:
                    lines[_line(shown or member, settings, error)] = None
                    faulty.add(settings)
                break
    return planner.plan(study, data, encoders, faulty), list(lines)


def _line(study: Study, settings: Settings, error: UserError) -> str:
    setting, _, text = str(error).partition(": ")
    return f"{place(study, settings, setting)}: {text}"
