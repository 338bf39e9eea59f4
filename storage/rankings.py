"""By whose scores an intervention takes heads, and on which promptset they are ranked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mneme.errors import BadInput
from storage.signatures import declared_facts, literal_defaults
from storage.specs import PRIMARY, ProbeChoice, is_name

RANK_ON = "rank_on"
_CHOICE = re.compile(r"([^\[\]]+)(?:\[([^\[\]]+)\])?")


def ranking_choice(probe: str, parameters: Mapping[str, Any]) -> ProbeChoice | None:
    """The probe, and its variant, by which heads are ranked: `name` or `name[variant]`; None for one that ranks none.

    Raises: BadInput for what names no probe, and for a probe that does not score heads.
    """
    parameter = declared_facts("probe", probe).get("ranks_with")
    if parameter is None:
        return None
    given = parameters.get(parameter, literal_defaults("probe", probe).get(parameter))
    found = _CHOICE.fullmatch(given) if isinstance(given, str) else None
    if found is None or not all(is_name(each) for each in found.groups(PRIMARY)):
        raise BadInput(
            f"{probe}.{parameter} is {repr(given)[:80]}: name a probe, or one of its variants as probe[variant]"
        )
    name, variant = found.groups(PRIMARY)
    level = declared_facts("probe", name)["level"]
    if level != "head":
        raise BadInput(f"{probe}.{parameter}: {name} cannot rank heads, it is of level {level}: name one of level head")
    return ProbeChoice(probe=name, variant=variant)


def ranking_promptset(probe: str, parameters: Mapping[str, Any]) -> str | None:
    """The other promptset on which heads are ranked; None where they are ranked on the trial's own, or not at all."""
    name = parameters.get(RANK_ON)
    if name is None or declared_facts("probe", probe).get("ranks_with") is None:
        return None
    if not isinstance(name, str):
        raise BadInput(f"{probe}.{RANK_ON} is {repr(name)[:80]}: name a promptset, or leave it out")
    return name
