"""ACDC keeps what a loop that tries one edge after another keeps, and the effects that are planted."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from mneme import acdc as acdc_module
from mneme.ablated_stream import EdgeAblation
from mneme.acdc import Order, acdc
from mneme.batch import Batch
from mneme.circuit_faithfulness import faithfulness
from mneme.circuits import Circuit, pruned
from mneme.edge_graph import EdgeGraph
from mneme.errors import BadInput
from mneme.kl_readout import kl_from_clean
from mneme.model import LanguageModel
from mneme.readouts import Readout, logit_difference
from tests import planted
from tests.architectures import VOCABULARY, tiny
from tests.naive_edges import NaiveEdges

READOUT = logit_difference(torch.arange(2) + 3, torch.arange(2) + 9)
LAST_IS_1, LAST_IS_2 = torch.tensor([[3, 1]]), torch.tensor([[3, 2]])
LOGIT_0 = Readout("logit_0", "logits", lambda logits, _, __: logits[:, 0])


@cache
def model(name: str, n_layers: int = 1) -> LanguageModel:
    """One layer of four heads, or two of two, llama's with keys and values for one."""
    fewer = {"n_head": 2} if name == "gpt2" else {"num_attention_heads": 2, "num_key_value_heads": 1}
    hf = tiny(name, torch.float64, num_hidden_layers=n_layers, **(fewer if n_layers == 2 else {}))
    return LanguageModel(hf, name, None, "cpu")


def adding(effects: list[list[float]]) -> LanguageModel:
    return LanguageModel(planted.additive_model(torch.tensor(effects)).double(), "sum", None, "cpu")


@cache
def pair() -> tuple[Batch, Batch]:
    ids = torch.randint(3, VOCABULARY, (2, 2, 6), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([6, 5])
    return Batch(ids[0], lengths), Batch(ids[1], lengths)


def graph_of(lm: LanguageModel) -> EdgeGraph:
    return EdgeGraph.sized(lm.n_layers, lm.n_heads, is_parallel=lm.name == "gpt_neox")


def one_by_one(
    lm: LanguageModel, readout: Readout, sign: float, tau: float, *, is_naive: bool, ablation: EdgeAblation = "corrupt"
) -> Circuit:
    """The algorithm by the book: every removal is a run of the whole circuit, and each is decided before the next."""
    graph, naive = graph_of(lm), NaiveEdges(lm, *pair(), readout)

    def loss(edges: Tensor) -> float:
        circuit = Circuit(graph, edges, 0)
        if is_naive:
            return sign * float(naive.readout_of(circuit, naive.other).mean())
        return sign * float(faithfulness(lm, *pair(), readout, [circuit], ablation=ablation).items.mean())

    edges = graph.legal.clone()
    current = loss(edges)
    for slot in reversed(range(graph.n_slots)):
        if slot < graph.n_slots - 1 and not bool(edges[graph.feeds[slot]].any()):
            edges[:, slot] = False
        for source in reversed(edges[:, slot].nonzero()[:, 0].tolist()):
            without = edges.clone()
            without[source, slot] = False
            then = loss(without)
            if then - current < tau:
                edges, current = without, then
    return Circuit(graph, pruned(graph, edges), int(edges.sum()))


def assert_same(found: Circuit, expected: Circuit) -> None:
    assert found.edge_names() == expected.edge_names()
    assert (found.graph, found.n_requested) == (expected.graph, expected.n_requested)


@pytest.mark.parametrize(("name", "tau"), [("gpt2", 0.02), ("gpt_neox", 0.01), ("gemma2", 0.02)])
def test_one_layer_keeps_the_edges_of_a_loop_of_plain_forwards(name: str, tau: float) -> None:
    lm = model(name)
    found = acdc(lm, *pair(), tau=tau)
    assert_same(found, one_by_one(lm, kl_from_clean(lm, pair()[0]), 1.0, tau, is_naive=True))
    assert 0 < found.n_edges < found.graph.n_edges


@pytest.mark.parametrize(("name", "tau"), [("gpt2", 0.003), ("llama", 0.01)])
def test_two_layers_keep_the_edges_of_a_loop_of_whole_circuits(name: str, tau: float) -> None:
    lm = model(name, 2)
    found = acdc(lm, *pair(), tau=tau, metric=READOUT)
    assert_same(found, one_by_one(lm, READOUT, -1.0, tau, is_naive=False))
    assert 0 < found.n_edges < found.graph.n_edges


@pytest.mark.parametrize("ablation", ["mean", "zero"])
def test_what_edges_carry_that_went_is_a_choice(ablation: EdgeAblation) -> None:
    lm, tau = model("gpt2", 2), 0.003
    found = acdc(lm, *pair(), tau=tau, metric=READOUT, ablation=ablation)
    assert_same(found, one_by_one(lm, READOUT, -1.0, tau, is_naive=False, ablation=ablation))
    assert found.edge_names() != acdc(lm, *pair(), tau=tau, metric=READOUT).edge_names()


def test_prompts_in_groups_keep_the_same_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = model("gpt2", 2)
    together = acdc(lm, *pair(), tau=0.003, metric=READOUT)
    monkeypatch.setattr(acdc_module, "items_per_group", lambda *_: 1)
    monkeypatch.setattr(acdc_module, "circuits_at_once", lambda *_: 1)
    assert_same(acdc(lm, *pair(), tau=0.003, metric=READOUT), together)


def test_pruning_leaves_the_loss_as_it_is() -> None:
    lm, tau = model("gpt2", 2), 0.003
    readout = kl_from_clean(lm, pair()[0])
    circuit = acdc(lm, *pair(), tau=tau)
    search = acdc_module._Search(lm, pair(), readout, 1.0)
    for slot in reversed(range(search.graph.n_slots)):
        sources = search.graph.legal[:, slot].nonzero()[:, 0].tolist()[::-1]
        if search.is_reached(slot):
            search.visit(slot, sources, lambda change: change < tau)
        else:
            search.edges[:, slot] = False
    assert circuit.n_edges < circuit.n_requested == int(search.edges.sum())
    read = faithfulness(lm, *pair(), readout, [circuit]).items.mean()
    assert float(read) == pytest.approx(search.loss, rel=1e-9)


EFFECTS = [[0.5, 0.1], [0.3, 0.02]]


@pytest.mark.parametrize(
    ("tau", "heads"),
    [(0.0, [(0, 0), (0, 1), (1, 0), (1, 1)]), (0.05, [(0, 0), (0, 1), (1, 0)]), (0.2, [(0, 0), (1, 0)]), (0.6, [])],
)
@pytest.mark.parametrize("order", ["late-first", "early-first", "random"])
def test_of_independent_effects_those_under_the_threshold_go(
    tau: float, heads: list[tuple[int, int]], order: Order
) -> None:
    circuit = acdc(adding(EFFECTS), LAST_IS_1, LAST_IS_2, tau=max(tau, 1e-9), metric=LOGIT_0, order=order)
    expected = [f"input->a{layer}.h{head}<v>" for layer, head in heads]
    expected += [f"a{layer}.h{head}->logits" for layer, head in heads]
    assert sorted(circuit.edge_names()) == sorted(expected)


def test_with_a_threshold_of_0_what_has_no_effect_stays_and_with_an_infinite_one_nothing() -> None:
    lm = adding(EFFECTS)
    everything = acdc(lm, LAST_IS_1, LAST_IS_2, tau=0.0, metric=LOGIT_0)
    assert torch.equal(everything.edges, everything.graph.legal)
    nothing = acdc(lm, LAST_IS_1, LAST_IS_2, tau=math.inf, metric=LOGIT_0)
    assert (nothing.n_edges, nothing.n_requested) == (0, 0)


@pytest.mark.parametrize(("order", "survivor"), [("late-first", "a0.h0"), ("early-first", "a1.h0")])
def test_of_two_heads_that_stand_in_for_each_other_the_one_tried_first_goes(order: Order, survivor: str) -> None:
    either = Readout("either", "logits", lambda logits, _, __: logits[:, 0].clamp_max(1.0))
    circuit = acdc(adding([[1.0], [1.0]]), LAST_IS_1, LAST_IS_2, tau=0.1, metric=either, order=order)
    assert circuit.edge_names() == [f"input->{survivor}<v>", f"{survivor}->logits"]


def test_a_head_that_hurts_stays_only_by_the_size_of_its_effect() -> None:
    lm = adding([[1.0, -0.5]])
    signed = acdc(lm, LAST_IS_1, LAST_IS_2, tau=0.1, metric=LOGIT_0)
    assert signed.edge_names() == ["input->a0.h0<v>", "a0.h0->logits"]
    by_size = acdc(lm, LAST_IS_1, LAST_IS_2, tau=0.1, metric=LOGIT_0, is_absolute=True)
    assert by_size.edge_names() == ["input->a0.h0<v>", "input->a0.h1<v>", "a0.h0->logits", "a0.h1->logits"]


def test_the_planted_copier_s_path_is_all_that_stays() -> None:
    lm = LanguageModel(planted.copy_model(induction_scale=12.0).double().requires_grad_(False), "copier", None, "cpu")
    tokens = [planted.FIRST_ID, 10, 11, 12, 13, 14, 11]
    circuit = acdc(lm, torch.tensor([tokens]), torch.tensor([[*tokens[:2], 20, *tokens[3:]]]), tau=0.01)
    assert circuit.edge_names() == ["input->a0.h0<v>", "a0.h0->a1.h0<k>", "a1.h0->logits"]


def test_kl_is_read_where_it_is_asked_for() -> None:
    lm, (clean, corrupt) = model("gpt2"), pair()
    first = torch.zeros_like(clean.ids, dtype=torch.bool)
    first[:, 2:4] = True
    log_probs = [torch.log_softmax(lm.logits(batch)[:, 2:4], dim=-1) for batch in (clean, corrupt)]
    expected = (log_probs[0].exp() * (log_probs[0] - log_probs[1])).sum(dim=-1).mean(dim=1)
    nothing = Circuit(graph_of(lm), torch.zeros_like(graph_of(lm).legal), 0)
    found = faithfulness(lm, clean, corrupt, kl_from_clean(lm, clean, first), [nothing])
    assert torch.allclose(found.empty, expected, rtol=1e-9)
    assert float(found.whole.abs().max()) < 1e-12
    last = torch.log_softmax(lm.logits(clean)[torch.arange(2), clean.lengths - 1], dim=-1)
    other = torch.log_softmax(lm.logits(corrupt)[torch.arange(2), clean.lengths - 1], dim=-1)
    at_last = faithfulness(lm, clean, corrupt, kl_from_clean(lm, clean), [nothing]).empty
    assert torch.allclose(at_last, (last.exp() * (last - other)).sum(dim=-1), rtol=1e-9)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"tau": -0.1}, "tau is -0.1: give a number of at least 0"),
    ({"tau": math.nan}, "tau is nan: give a number of at least 0"),
    ({"tau": 0.1, "order": "late"}, "order is 'late': choose one of late-first, "),
    ({"tau": 0.1, "metric": "loss"}, "metric is 'loss': choose one of kl"),
    ({"tau": 0.1, "metric": READOUT, "positions": torch.ones(2, 6, dtype=torch.bool)}, "a readout says itself where"),
    ({"tau": 0.1, "positions": torch.ones(2, 6, dtype=torch.bool)}, "none of them the last or padding"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        acdc(model("gpt2"), *pair(), **options)


def test_pairs_that_say_nothing_and_rounding_that_would_decide_are_refused() -> None:
    lm, (clean, corrupt) = model("gpt2"), pair()
    with pytest.raises(BadInput, match="every corrupt prompt is its clean prompt"):
        acdc(lm, clean, clean, tau=0.1)
    rounded = LanguageModel(tiny("gpt2").to(torch.bfloat16), "rounded", None, "cpu")
    with pytest.raises(BadInput, match=r"rounded is loaded in torch\.bfloat16, whose rounding would decide"):
        acdc(rounded, clean, corrupt, tau=0.1)
