"""Masking heads where the answer is decoded: the head that copies is needed there, the one below it is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mneme.encoding import padded
from mneme.errors import BadInput
from mneme.head_order import Ranking
from mneme.measuring import measure
from mneme.model import LanguageModel, load_model
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.readouts import logit_difference
from tests import references
from tests.architectures import tiny
from tests.planted import FIRST_ID, INDUCTION_HEAD, PREVIOUS_TOKEN_HEAD, copy_model, save

MASKING = probes.get("head_ablation_accuracy")
HARM = probes.get("head_ablation")


@pytest.fixture(scope="module")
def copying(tmp_path_factory) -> LanguageModel:
    return load_model(save(copy_model(), tmp_path_factory.mktemp("copying")))


@pytest.fixture(scope="module")
def prompts() -> Promptset:
    """First token, filler, a trigger and its answer, filler, the trigger again."""
    rows = []
    for seed in range(4):
        order = torch.randperm(FIRST_ID, generator=torch.Generator().manual_seed(seed)).tolist()
        rows.append([FIRST_ID, *order[: 10 + seed], order[60], *order[10 + seed : 20 + seed], order[60]])
    value = torch.tensor([12 + seed for seed in range(4)])
    batch = padded(rows, {"value": value, "end": torch.tensor([len(row) - 1 for row in rows])})
    answers = batch.ids[torch.arange(4), value][:, None]
    return Promptset(batch, correct_ids=answers, wrong_ids=torch.full_like(answers, FIRST_ID))


def lost(lm: LanguageModel, prompts: Promptset, **parameters: object) -> dict[str, Tensor]:
    scores = torch.zeros(len(prompts), lm.n_layers, lm.n_heads)
    scores[:, INDUCTION_HEAD[0], INDUCTION_HEAD[1]] = 1.0
    given = {"ks": [1], "n_draws": 3} | parameters
    return measure(MASKING, given, prompts, lm=lm, ranking=Ranking(scores, is_elsewhere=True))


@pytest.mark.parametrize("kind", ["mean", "zero", "uniform"])
def test_without_the_copying_head_where_the_answer_is_decoded_every_answer_is_lost(
    copying: LanguageModel, prompts: Promptset, kind: str
) -> None:
    found = lost(copying, prompts, kind=kind, position="end")
    assert float(found["clean"].min()) == 1.0
    if kind == "zero":
        assert torch.equal(found["effects"][(slice(None), *INDUCTION_HEAD)], torch.ones(4))
    assert torch.equal(found["effects"][(slice(None), *PREVIOUS_TOKEN_HEAD)], torch.zeros(4))
    assert torch.equal(found["set_effects"][:, 0], found["effects"][(slice(None), *INDUCTION_HEAD)])
    assert torch.equal(found["control_effects"], torch.zeros(4, 1, 3))


def test_everywhere_the_head_that_prepares_the_copy_is_needed_too(copying: LanguageModel, prompts: Promptset) -> None:
    ranking = Ranking(torch.rand(4, 2, 4), is_elsewhere=True)
    for position, is_needed in ((None, True), ("end", False)):
        parameters = {"kind": "zero", "position": position, "ks": [1], "n_draws": 1}
        effects = measure(HARM, parameters, prompts, lm=copying, ranking=ranking)["effects"]
        assert float(effects[(slice(None), *INDUCTION_HEAD)].min()) > 10
        assert bool((effects[(slice(None), *PREVIOUS_TOKEN_HEAD)] > 10).all()) == is_needed


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_harm_at_one_position_equals_a_full_forward_with_the_head_set_to_zero_there(name: str) -> None:
    lm = LanguageModel(tiny(name, torch.float64), name, None, "cpu")
    ids = torch.randint(3, 40, (3, 9), generator=torch.Generator().manual_seed(0))
    batch = padded([ids[0].tolist(), ids[1, :7].tolist(), ids[2, :8].tolist()], {"place": torch.tensor([4, 6, 2])})
    asked = Promptset(batch, correct_ids=ids[:, :1], wrong_ids=ids[:, 1:2])
    ranking = Ranking(torch.rand(3, lm.n_layers, lm.n_heads), is_elsewhere=True)
    parameters = {"kind": "zero", "position": "place", "ks": [1], "n_draws": 1}
    found = measure(HARM, parameters, asked, lm=lm, ranking=ranking)
    readout = logit_difference(asked.correct_ids, asked.wrong_ids)
    replaced = references.all_z(lm, batch)
    for z in replaced:
        z[torch.arange(3), batch.labels["place"]] = 0
    expected = references.read(readout, references.stock_logits(lm, batch), batch)[:, None, None]
    expected = expected - references.each_head(lm, batch, readout, replaced)
    torch.testing.assert_close(found["effects"].double(), expected, atol=1e-5, rtol=1e-4)


def test_a_position_that_prompts_do_not_name_is_refused(copying: LanguageModel, prompts: Promptset) -> None:
    with pytest.raises(BadInput, match="middle"):
        lost(copying, prompts, position="middle")
