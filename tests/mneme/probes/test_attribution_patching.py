"""Attribution patching as a probe: signs as in head patching, variants beside exact runs, and what it refuses."""

from pathlib import Path

import pytest
import torch
import yaml

from mneme.errors import BadInput, NotApplicable
from mneme.measuring import measure
from mneme.model import LanguageModel
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.reliability import spearman
from tests import planted
from tests.architectures import tiny
from tests.probe_prompts import repeated

PROBE = probes.get("attribution_patching")
VARIANTS = yaml.safe_load((Path(__file__).parents[3] / "configs/probes/attribution_patching.yaml").read_text())[
    "variants"
]


@pytest.fixture(scope="module")
def lm():
    return LanguageModel(tiny("gpt2", n_positions=64, n_embd=32), "gpt2", None, "cpu")


@pytest.fixture(scope="module")
def prompts(lm):
    return repeated(lm)


def scores(lm, prompts, **parameters):
    return measure(PROBE, parameters, prompts, lm=lm)["scores"]


@pytest.mark.parametrize("method", ["atp", "exact"])
def test_a_head_that_adds_the_answer_carries_what_it_adds(method):
    effects = torch.tensor([[0.5, -0.25], [2.0, 0.125]])
    lm = LanguageModel(planted.additive_model(effects), "sum", None, "cpu")
    pair = torch.tensor([[3, 1], [4, 1]]), torch.tensor([[3, 2], [4, 2]])
    answers = torch.zeros(2, 1, dtype=torch.int64)
    prompts = Promptset(lm.batch(pair[0]), corrupt=lm.batch(pair[1]), correct_ids=answers, wrong_ids=answers + 5)
    torch.testing.assert_close(scores(lm, prompts, method=method), effects.expand(2, -1, -1))


def test_exact_is_head_patching_in_the_direction_of_noise(lm, prompts):
    noise = measure(probes.get("head_patching"), {"direction": "noise"}, prompts, lm=lm)["effects"]
    torch.testing.assert_close(scores(lm, prompts, method="exact"), noise, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_measures_and_those_with_dropped_gradients_are_sizes(lm, prompts, name):
    found = scores(lm, prompts, **VARIANTS[name])
    assert torch.isfinite(found).all()
    assert float(found.abs().max()) > 1e-4
    is_size = "star" in name or "drop" in name
    assert bool((found >= 0).all()) == is_size


def test_the_mended_queries_come_nearer_to_the_exact_ones_than_the_plain_ones(lm, prompts):
    exact, plain, fixed = (
        scores(lm, prompts, method=method, part="q").mean(dim=0).flatten() for method in ("exact", "atp", "qk_fix")
    )
    assert spearman(fixed, exact) > spearman(plain, exact)
    assert spearman(fixed, exact) > 0.5


def test_what_it_does_not_apply_to_is_refused(lm, prompts):
    clean = prompts.clean
    with pytest.raises(NotApplicable, match="no corrupt ones"):
        scores(lm, Promptset(clean, correct_ids=prompts.correct_ids, wrong_ids=prompts.wrong_ids))
    with pytest.raises(NotApplicable, match="has none"):
        scores(lm, Promptset(clean, corrupt=prompts.corrupt))
    with pytest.raises(BadInput, match=r"attribution_patching\.method is 'eap': choose one of atp, "):
        scores(lm, prompts, method="eap")
    with pytest.raises(BadInput, match="qk_fix is for queries and keys"):
        scores(lm, prompts, method="qk_fix")
