"""One test for every probe, so that nobody is forgotten: a new member is tested by being there."""

import inspect

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.measuring import measure
from mneme.model import load_model
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.tracing import trace_sites
from tests.planted import save

NAMES = probes.names()
OF_WEIGHTS = [name for name in NAMES if probes.get(name).reads == "weights"]
OF_PROMPTS = [name for name in NAMES if name not in OF_WEIGHTS]
SCORES = [name for name in OF_PROMPTS if probes.get(name).level != "intervention"]
TRACED = [name for name in SCORES if probes.get(name).site is not None]
PERIOD, ITEMS = 10, 6


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=40,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    return load_model(save(GPT2LMHeadModel(config).eval(), tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def prompts(lm):
    """Repeated tokens that every probe applies to: pairs, with answers whose logits the model moves apart."""
    generator = torch.Generator().manual_seed(0)
    body = torch.stack([torch.randperm(39, generator=generator)[:PERIOD] + 1 for _ in range(ITEMS)])
    ids = torch.cat([torch.zeros(ITEMS, 1, dtype=torch.int64), body, body], dim=1)
    starts = {"list1": 1, "list2": 1 + PERIOD}
    labels = {f"{name}_{j}": torch.full((ITEMS,), at + j) for name, at in starts.items() for j in range(PERIOD)}
    asked = {"key": 4, "value": 5, "value_next": 6, "question_first": 2 * PERIOD - 1, "question": 2 * PERIOD}
    labels |= {name: torch.full((ITEMS,), at) for name, at in asked.items()}
    with torch.no_grad():
        moved = lm.hf(ids).logits[:, -1] - lm.hf(ids.flip(0)).logits[:, -1]
    return Promptset(
        Batch(ids, torch.full((ITEMS,), ids.shape[1]), labels),
        corrupt=Batch.of(ids.flip(0)),
        correct_ids=moved.argmax(dim=1, keepdim=True),
        wrong_ids=moved.argmin(dim=1, keepdim=True),
        facts={"period": PERIOD, "copies": 2, "copy": "exact", "offset": 1, "bos_mode": "eot_as_bos"},
    )


def items_of(name, prompts, lm, seed=0):
    probe = probes.get(name)
    ranking = torch.rand(len(prompts), 2, 4, generator=torch.Generator().manual_seed(1))
    return measure(probe, {}, prompts, lm=lm, ranking=ranking if probe.ranks_with else None, probe_seed=seed)


def main_items(name, items):
    return items[{"head": "scores", "behavior": "values", "intervention": "effects"}[probes.get(name).level]]


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_its_number_is_and_where_it_comes_from(name):
    probe = probes.get(name)
    assert probe.source
    assert probe.unit
    assert probe.module == f"mneme.probes.{name}"
    assert "Source:" in (inspect.getdoc(probe.measure) or "") or probe.level == "behavior"
    assert (inspect.getdoc(probe.measure) or "").count("\n") >= 3


@pytest.mark.parametrize("name", NAMES)
def test_its_numbers_lie_in_its_range_one_per_item(name, prompts, lm):
    probe, found = probes.get(name), main_items(name, items_of(name, prompts, lm))
    items = () if name in OF_WEIGHTS else (ITEMS,)
    assert found.shape == (items if probe.level == "behavior" else (*items, 2, 4))
    assert torch.isfinite(found).all()
    assert probe.low is None or float(found.min()) >= probe.low
    assert probe.high is None or float(found.max()) <= probe.high


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
    assert torch.equal(stored, main_items(name, items_of(name, prompts, lm)))


@pytest.mark.parametrize("name", SCORES)
def test_an_item_scores_the_same_alone_as_in_company(name, prompts, lm):
    together = main_items(name, items_of(name, prompts, lm))
    alone = [main_items(name, items_of(name, prompts.select(slice(each, each + 1)), lm)) for each in range(ITEMS)]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_the_order_of_the_items_does_not_matter(name, prompts, lm):
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    together = main_items(name, items_of(name, prompts, lm))
    shuffled = main_items(name, items_of(name, prompts.select(order), lm))
    torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=1e-4)


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
