"""One model on one promptset: what all trials of the two share."""

from __future__ import annotations

from dataclasses import dataclass

from mneme.errors import NotApplicable
from storage.entries import Entries
from storage.home import Home
from storage.specs import TrialSpec
from tasks.keys import Parts, key_of, prepare_parts, run_parts
from tasks.materialise import materialise, model_folder
from tasks.prepare import prepare
from tasks.stage import Value, is_whole


@dataclass(frozen=True)
class Pairing:
    """A materialised model and a prepared promptset, with the identity that both give to every number."""

    home: Home
    trial: TrialSpec
    device: str
    model: Value
    promptset: Value
    parts: Parts

    @property
    def how(self) -> dict[str, str]:
        """What stages need to run the model."""
        return {"dtype": self.trial.model_spec.dtype, "device": self.device, "label": self.trial.pairing_label}


def open_pairing(home: Home, trial: TrialSpec, device: str, *, use: bool = False) -> Pairing:
    """Materialise the model and prepare the promptset, from the cache where it can be.

    `use` says that both will be read now: every file of them is checked and what is damaged is made again. Raises
    NotApplicable when the promptset makes no sense for the model, BadInput for what cannot be used.
    """
    model = materialise(home, trial, use=use)
    key = key_of("prepare", prepare_parts(trial, model))
    inputs = {
        "spec": trial.promptset_spec.model_dump(mode="json"),
        "seed": trial.promptset_seed,
        "bos_mode": trial.model_spec.bos_mode,
        "folder": "",
    }
    if not is_whole(home, Entries(home.entries).read(key), use):
        inputs["folder"] = str(model_folder(home, materialise(home, trial, use=True)))
    promptset = prepare.run(home, key, trial.pairing_label, inputs, use=use)
    if "not_applicable" in promptset:
        raise NotApplicable(promptset["not_applicable"])
    return Pairing(home, trial, device, model, promptset, run_parts(trial, model, promptset, device))
