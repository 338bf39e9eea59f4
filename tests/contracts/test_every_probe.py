"""One test for every probe, so that nobody is forgotten: a new member is tested by being there."""

import inspect

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mneme.batch import Batch
from mneme.circuit_findings import CircuitFindings
from mneme.errors import BadInput, NotApplicable
from mneme.measuring import measure
from mneme.model import load_model
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.tracing import trace_sites
from tests.planted import save
from tests.probe_prompts import FEW, OF_GROUPS, prompts_for

NAMES = probes.names()
OF_WEIGHTS = [name for name in NAMES if probes.get(name).reads == "weights"]
OF_PROMPTS = [name for name in NAMES if name not in OF_WEIGHTS]
CURVES = [name for name in NAMES if probes.get(name).level == "curve"]
CIRCUITS = [name for name in NAMES if probes.get(name).level == "circuit"]
SCORES = [name for name in OF_PROMPTS if probes.get(name).level in ("head", "behavior")]
TRACED = [name for name in SCORES if probes.get(name).site is not None]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=40,
        n_positions=64,
        n_embd=32,
        n_layer=4,
        n_head=4,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    return load_model(save(GPT2LMHeadModel(config).eval(), tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.fixture
def prompts(made, lm, name):
    """The prompts of the probe that is tried, made once."""
    if name not in made:
        made[name] = prompts_for(name, lm)
    return made[name]


def items_of(name, prompts, lm, seed=0):
    probe = probes.get(name)
    ranking = torch.rand(len(prompts), lm.n_layers, lm.n_heads, generator=torch.Generator().manual_seed(1))
    return measure(
        probe, FEW.get(name, {}), prompts, lm=lm, ranking=ranking if probe.ranks_with else None, probe_seed=seed
    )


def main_items(name, items):
    probe = probes.get(name)
    if probe.level == "curve":
        return torch.cat([items[f"curve.{curve}.values"] for curve in probe.curves], dim=1)
    if probe.level == "circuit":
        return items["matrix"]
    return items[{"head": "scores", "behavior": "values", "intervention": "effects"}[probe.level]]


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_its_number_is_and_where_it_comes_from(name):
    probe = probes.get(name)
    assert probe.source
    assert probe.unit
    assert probe.module == f"mneme.probes.{name}"
    assert "Source:" in (inspect.getdoc(probe.measure) or "") or probe.level == "behavior"
    assert (inspect.getdoc(probe.measure) or "").count("\n") >= 3


@pytest.mark.parametrize("name", CURVES)
def test_its_curves_lie_in_the_ranges_that_it_states_with_units_and_axes(name, prompts, lm):
    probe, items = probes.get(name), items_of(name, prompts, lm)
    first, *_ = probe.curves.values()
    assert (probe.unit, probe.low, probe.high) == first[1:]
    for curve, facts in probe.curves.items():
        values = items[f"curve.{curve}.values"]
        assert values.shape == (len(prompts), len(items[f"curve.{curve}.x"]))
        known = values[~values.isnan()]
        assert torch.isfinite(known).all()
        assert facts.x_name
        assert facts.unit
        assert facts.low is None or bool((known >= facts.low).all())
        assert facts.high is None or bool((known <= facts.high).all())
    assert not torch.isnan(main_items(name, items)).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*CURVES, *CIRCUITS)])
def test_its_numbers_lie_in_its_range_one_per_item(name, prompts, lm):
    probe, found = probes.get(name), main_items(name, items_of(name, prompts, lm))
    items = () if name in OF_WEIGHTS else (len(prompts),)
    assert found.shape == (items if probe.level == "behavior" else (*items, lm.n_layers, lm.n_heads))
    found = found[~found.isnan()] if name in OF_GROUPS else found
    assert len(found)
    assert torch.isfinite(found).all()
    assert probe.low is None or float(found.min()) >= probe.low
    assert probe.high is None or float(found.max()) <= probe.high


@pytest.mark.parametrize("name", CIRCUITS)
def test_its_circuits_are_tested_on_prompts_that_did_not_find_them_and_the_whole_graph_keeps_all(name, prompts, lm):
    found = CircuitFindings.of_arrays(items_of(name, prompts, lm))
    n_found = int(found.is_discovery.sum())
    assert 0 < n_found < len(prompts)
    assert found.item_scores.shape == (n_found, found.graph.n_edges)
    assert torch.equal(found.matrix.isnan(), ~found.graph.legal)
    torch.testing.assert_close(found.item_scores.mean(dim=0), found.matrix[found.graph.legal], atol=1e-5, rtol=1e-4)
    for run in found.runs.values():
        assert run.shape == (len(prompts) - n_found, 2 + len(found.circuits))
        assert torch.equal(run[:, 0], run[:, -1])
    assert found.circuits[-1].n_edges == found.graph.n_edges
    assert [each.n_requested for each in found.circuits] == sorted({each.n_requested for each in found.circuits})
    assert int(found.is_selected.sum()) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_it_leaves_its_input_as_it_was(name, prompts, lm):
    ids = prompts.clean.ids.clone()
    weights = {key: value.clone() for key, value in lm.hf.state_dict().items()}
    items_of(name, prompts, lm)
    assert torch.equal(prompts.clean.ids, ids)
    assert all(torch.equal(value, weights[key]) for key, value in lm.hf.state_dict().items())


@pytest.mark.parametrize("name", TRACED)
def test_a_stored_trace_is_left_as_it_was_and_gives_the_digits_of_the_model(name, prompts, lm):
    probe = probes.get(name)
    arrays = trace_sites(lm, prompts, [probe.site])[probe.site]
    copies = {key: value.clone() for key, value in arrays.items()}
    (stored,) = measure(probe, {}, prompts, trace=arrays).values()
    assert all(torch.equal(value.nan_to_num(-9), copies[key].nan_to_num(-9)) for key, value in arrays.items())
    assert torch.equal(stored.nan_to_num(-9), main_items(name, items_of(name, prompts, lm)).nan_to_num(-9))


@pytest.mark.parametrize("name", [name for name in SCORES if name not in OF_GROUPS])
def test_an_item_scores_the_same_alone_as_in_company(name, prompts, lm):
    together = main_items(name, items_of(name, prompts, lm))
    alone = [
        main_items(name, items_of(name, prompts.select(slice(each, each + 1)), lm)) for each in range(len(prompts))
    ]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_the_order_of_the_items_does_not_matter(name, prompts, lm):
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(1))
    together = main_items(name, items_of(name, prompts, lm))
    shuffled = main_items(name, items_of(name, prompts.select(order), lm))
    torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=1e-4, equal_nan=name in OF_GROUPS)


@pytest.mark.parametrize("name", NAMES)
def test_twice_gives_the_same_digits(name, prompts, lm):
    first, again = items_of(name, prompts, lm), items_of(name, prompts, lm)
    assert all(torch.equal(first[key].nan_to_num(-9), again[key].nan_to_num(-9)) for key in first)


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_what_reads_the_weights_gives_the_same_whatever_the_prompts_are(name, prompts, lm):
    assert probes.get(name).level == "head"
    assert probes.get(name).site is None
    single = Promptset(Batch.of(torch.ones(2, 1, dtype=torch.int64)))
    assert torch.equal(items_of(name, single, lm)["scores"], items_of(name, prompts, lm)["scores"])


@pytest.mark.parametrize("name", OF_PROMPTS)
def test_one_token_is_not_enough_and_gives_no_number(name, lm):
    single = Promptset(Batch.of(torch.ones(2, 1, dtype=torch.int64)))
    try:
        found = main_items(name, items_of(name, single, lm))
    except (NotApplicable, BadInput):
        return
    assert torch.isnan(found).all()
