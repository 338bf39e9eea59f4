"""Trials of one pairing, answered: found in the lake, or traced, measured, summarised and delivered."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flows.pairing import Pairing, open_pairing
from mneme.errors import MnemeError, NotApplicable
from storage.content import PROMPTS, ContentStore
from storage.disk import is_full
from storage.entries import Entries
from storage.home import Home
from storage.identity import canonical_json, digest, versions
from storage.lake import Lake
from storage.redacting import redacted
from storage.specs import TrialSpec
from tasks.deliver import deliver, deliver_without_rows
from tasks.identify import Identified, identify, ranking_trial
from tasks.keys import ATTENTION
from tasks.materialise import is_trained
from tasks.measure import measure
from tasks.sizes import fits
from tasks.stage import Value, is_whole, object_of
from tasks.trace import trace

_logger = logging.getLogger("mneme")
Status = Literal["delivered", "failed", "not_applicable"]


@dataclass(frozen=True)
class Asking:
    """Who asks: the study, its device, how large a stored trace may be, and which trials to compute anew.

    `untrained` holds why the training of a model failed in this run: it is not tried again for the next promptset.
    """

    study: str
    device: str
    trace_limit_mib: float
    refresh: frozenset[str] = frozenset()
    untrained: dict[str, Exception] = field(default_factory=dict, compare=False)

    def anew(self, trial: TrialSpec) -> bool:
        """Whether the trial was named in --refresh: by its id, the start of it, its probe, or `all`."""
        names = {"all", trial.probe, trial.model, trial.promptset}
        return any(each in names or trial.trial_id.startswith(each) for each in self.refresh)


@dataclass(frozen=True)
class Answer:
    """How one trial went."""

    trial: TrialSpec
    delivery_id: str
    status: Status
    error: str | None = None


@dataclass(frozen=True)
class Answered:
    """The trials of one pairing, and the file of their prompts (None when there are none)."""

    answers: tuple[Answer, ...]
    prompts: str | None


def answer_pairing(home: Home, asking: Asking, trials: Sequence[TrialSpec]) -> Answered:
    """Answer all trials of one model on one promptset; one that fails is recorded and the others go on."""
    model = trials[0].finished_model_label
    try:
        if model in asking.untrained:
            raise asking.untrained[model]
        pairing = open_pairing(home, trials[0], asking.device)
        asked, refused = _identified(pairing, trials)
        missing = [each for each in asked.values() if asking.anew(each.trial) or not each.is_delivered(home)]
        if missing:
            pairing = open_pairing(home, trials[0], asking.device, use=True)
        traces = trace_missing(pairing, asking, missing)
    except Exception as error:
        if not is_trained(home, trials[0]):
            asking.untrained[model] = error
        return answered_without_rows(home, asking, trials, error)
    prompts = ContentStore(home.store).path(object_of(pairing.promptset)) / PROMPTS
    answers = (
        _without_rows(home, asking, trial, refused[trial.trial_id])
        if trial.trial_id in refused
        else _answer(pairing, asking, asked[trial.trial_id], traces)
        for trial in trials
    )
    return Answered(tuple(answers), str(prompts))


def answered_without_rows(home: Home, asking: Asking, trials: Sequence[TrialSpec], error: Exception) -> Answered:
    """Record that these trials came to nothing, all for one reason; a full disk is raised again."""
    return Answered(tuple(_without_rows(home, asking, trial, error) for trial in trials), None)


def _identified(pairing: Pairing, trials: Sequence[TrialSpec]) -> tuple[dict[str, Identified], dict[str, MnemeError]]:
    """The trials by id; and why, where one cannot be asked since the prompts that rank its heads make no sense."""
    asked: dict[str, Identified] = {}
    refused: dict[str, MnemeError] = {}
    for trial in trials:
        ranked = ranking_trial(trial)
        try:
            is_elsewhere = ranked is not None and trial.ranked_on is not None
            elsewhere = open_pairing(pairing.home, ranked, pairing.device).parts if ranked and is_elsewhere else None
            asked[trial.trial_id] = identify(trial, pairing.parts, elsewhere)
        except MnemeError as error:
            refused[trial.trial_id] = error
    return asked, refused


def trace_missing(pairing: Pairing, asking: Asking, missing: Sequence[Identified]) -> dict[str, Value]:
    """The stored traces that the missing trials read, by site: what is not stored is captured in one pass.

    A site too large to store is left out; its probes run inside the forward pass instead.
    """
    home, entries = pairing.home, Entries(pairing.home.entries)
    unmeasured = [
        each
        for one in missing
        for each in (one, one.own_ranking)
        if each is not None
        and each.site is not None
        and (asking.anew(each.trial) or not is_whole(home, entries.read(each.measure_key)))
    ]
    keys = {str(each.site): str(each.trace_key) for each in unmeasured}
    keys = {
        site: key for site, key in keys.items() if fits(pairing.model, pairing.promptset, site, asking.trace_limit_mib)
    }
    absent = {site: key for site, key in keys.items() if not is_whole(home, entries.read(key))}
    inputs = {"model": pairing.model, "promptset": pairing.promptset, "how": pairing.how}
    return {
        site: trace.run(
            home,
            key,
            f"{pairing.how['label']} / {site}",
            {**inputs, "site": site, "together": {site: key} | absent},
        )
        for site, key in keys.items()
    }


def measured(pairing: Pairing, asking: Asking, asked: Identified, traces: dict[str, Value]) -> Value:
    """A trial's items in the store, from the cache, the trace or the model."""
    ranking = _ranking(pairing, asking, asked, traces)
    trial = asked.trial
    return measure.run(
        pairing.home,
        asked.measure_key,
        trial.label,
        {
            "probe": trial.probe,
            "parameters": trial.parameters,
            "probe_seed": trial.probe_seed,
            "model": pairing.model,
            "promptset": pairing.promptset,
            "trace": traces.get(str(asked.site)),
            "ranking": ranking,
            "is_ranked_elsewhere": asked.is_ranked_elsewhere,
            "how": {**pairing.how, "label": trial.label},
        },
        refresh=asking.anew(trial),
    )


def _ranking(pairing: Pairing, asking: Asking, asked: Identified, traces: dict[str, Value]) -> Value | None:
    """The items whose heads an intervention takes, measured on the trial's own prompts or on others."""
    if asked.ranking is None:
        return None
    if asked.is_ranked_elsewhere:
        pairing = open_pairing(pairing.home, asked.ranking.trial, pairing.device, use=True)
        traces = trace_missing(pairing, asking, [asked.ranking])
    found = measured(pairing, asking, asked.ranking, traces)
    if "not_applicable" in found:
        raise NotApplicable(found["not_applicable"])
    return found


def _answer(pairing: Pairing, asking: Asking, asked: Identified, traces: dict[str, Value]) -> Answer:
    home, trial = pairing.home, asked.trial
    anew = asking.anew(trial) or not asked.is_delivered(home)
    inputs: dict[str, Any] = {"trial": trial.model_dump(mode="json")}
    try:
        if anew:
            items = measured(pairing, asking, asked, traces)
            if "not_applicable" in items:
                raise NotApplicable(items["not_applicable"])
            site_trace = traces.get(str(asked.site))
            inputs |= {
                "items_key": asked.measure_key,
                "items": items,
                "promptset": pairing.promptset,
                "about": _about(asking, asked, items, site_trace),
            }
        deliver.run(home, asked.delivery_key, trial.label, inputs, refresh=_must_replace(home, asking, asked))
    except Exception as error:
        return _without_rows(home, asking, trial, error)
    Lake(home.lake).answer(asking.study, trial.trial_id, asked.delivery_id)
    return Answer(trial, asked.delivery_id, "delivered")


def _must_replace(home: Home, asking: Asking, asked: Identified) -> bool:
    """Whether a stored delivery must not be served: it is to be made anew, or its lake files are not what they were.

    Asked late: another process may have delivered the same trial meanwhile, and then its delivery is the answer.
    """
    is_stored = Entries(home.entries).read(asked.delivery_key) is not None
    return asking.anew(asked.trial) or (is_stored and not asked.is_delivered(home))


def _about(asking: Asking, asked: Identified, items: Value, site_trace: Value | None) -> dict[str, Any]:
    """The part of the trial's row that only the answer knows; a trace shared by several trials counts in each."""
    shared = items.get("traced") or site_trace or {"seconds": 0.0, "pass_forwards": 0}
    code = {name: value for name, value in asked.parts.items() if name.startswith("code.")}
    return {
        "delivery_id": asked.delivery_id,
        "status": "delivered",
        "error": None,
        "seconds": round(float(items["seconds"]) + float(shared["seconds"]), 3),
        "forwards": int(items["forwards"]) + int(shared["pass_forwards"]),
        "device": asking.device,
        "dtype": asked.trial.model_spec.dtype,
        "code": digest(code, 16),
        "versions": canonical_json({**versions(), "attention": ATTENTION}),
        "identity": canonical_json(asked.parts),
    }


def _without_rows(home: Home, asking: Asking, trial: TrialSpec, error: Exception) -> Answer:
    if is_full(error):
        raise error
    if not isinstance(error, MnemeError):
        _logger.error("trial %s failed\n%s", trial.label, redacted("".join(traceback.format_exception(error))))
    status: Status = "not_applicable" if isinstance(error, NotApplicable) else "failed"
    sentence = redacted(str(error) if isinstance(error, MnemeError) else f"{type(error).__name__}: {error}")
    delivery_id = digest({"asked": trial.trial_id, "outcome": status, "error": sentence})
    about = {
        "delivery_id": delivery_id,
        "status": status,
        "error": sentence,
        "seconds": None,
        "forwards": None,
        "device": asking.device,
        "dtype": trial.model_spec.dtype,
        "code": None,
        "versions": canonical_json(versions()),
        "identity": canonical_json({"asked": trial.trial_id}),
    }
    deliver_without_rows(home, trial, about)
    Lake(home.lake).answer(asking.study, trial.trial_id, delivery_id)
    return Answer(trial, delivery_id, status, sentence)
