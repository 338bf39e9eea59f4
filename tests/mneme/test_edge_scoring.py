"""Edge scores equal a plain forward for every edge, are complete, and find the planted path."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from mneme import edge_gradients, edge_scoring, slot_gradients
from mneme.batch import Batch
from mneme.circuit_faithfulness import faithfulness
from mneme.circuits import find_circuit, ungrouped
from mneme.edge_graph import EdgeGraph
from mneme.edge_scoring import EdgeMethod, EdgeScores, Rule, edge_scores, shares
from mneme.errors import BadInput, NotApplicable
from mneme.head_entries import find_entries
from mneme.model import LanguageModel
from mneme.readouts import Readout, logit_difference
from tests import planted
from tests.architectures import VOCABULARY, tiny
from tests.naive_edges import NAMES, NaiveEdges

ROUNDED = 1e-7  # RMSNorm rounds to float32 inside, even in a model of float64
READOUT = logit_difference(torch.arange(2) + 3, torch.arange(2) + 9)


@cache
def model(name: str) -> LanguageModel:
    return LanguageModel(tiny(name, torch.float64, num_hidden_layers=2), name, None, "cpu")


def pair() -> tuple[Batch, Batch]:
    ids = torch.randint(3, VOCABULARY, (2, 2, 8), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([8, 6])
    return Batch(ids[0], lengths), Batch(ids[1], lengths)


def some_edges(scores: EdgeScores, n_edges: int = 16) -> list[tuple[int, int]]:
    """Edges of all kinds, drawn, and always one into each kind of slot."""
    legal = scores.graph.legal.nonzero()
    drawn = torch.randperm(len(legal), generator=torch.Generator().manual_seed(1))[:n_edges]
    last = [int(slot) for slot in torch.arange(scores.graph.n_slots)[-4:]]
    return [(int(source), int(slot)) for source, slot in legal[drawn]] + [(1, slot) for slot in last]


@pytest.mark.parametrize("name", NAMES)
def test_every_method_equals_a_plain_forward_for_each_edge(name: str) -> None:
    lm, (clean, corrupt) = model(name), pair()
    eap = edge_scores(lm, clean, corrupt, READOUT, keep_items=True)
    exact = edge_scores(lm, clean, corrupt, READOUT, "exact", keep_items=True)
    assert eap.items is not None
    assert exact.items is not None
    naive = NaiveEdges(lm, clean, corrupt, READOUT)
    before = naive.readout_with({})
    assert torch.allclose(before, eap.clean)
    for source, slot in some_edges(exact):
        names = exact.graph.sources[source], exact.graph.slots[slot]
        share = torch.zeros((), dtype=torch.float64, requires_grad=True)
        slope = [
            torch.autograd.grad(each, share, retain_graph=True)[0]
            for each in naive.readout_with({names[1]: naive.change(names[0], share)})
        ]
        assert torch.allclose(eap.items[:, source, slot], torch.stack(slope), rtol=1e-6, atol=ROUNDED), names
        with torch.no_grad():
            whole = naive.readout_with({names[1]: naive.change(names[0])}) - before
        assert torch.allclose(exact.items[:, source, slot], whole, rtol=1e-6, atol=1e-9), names


def test_heads_told_apart_at_their_projections_equal_one_pass_backwards_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm, (clean, corrupt) = model("starcoder2"), pair()  # shared keys and values, and a norm that does not round
    split = edge_scores(lm, clean, corrupt, READOUT, keep_items=True).items
    monkeypatch.setattr(edge_gradients, "CHUNK_ELEMENTS", 1)  # one position at a time
    chunked = edge_scores(lm, clean, corrupt, READOUT, keep_items=True).items
    monkeypatch.setattr(slot_gradients, "slope_of", lambda *_: None)
    through_norms = edge_scores(lm, clean, corrupt, READOUT, keep_items=True).items
    summed = edge_scores(lm, clean, corrupt, READOUT, "eap-ig-inputs", 2, keep_items=True).items
    monkeypatch.undo()
    folded = edge_scores(lm, clean, corrupt, READOUT, "eap-ig-inputs", 2, keep_items=True).items
    whole = [replace(entry, blocks=None) for entry in find_entries(lm)]
    monkeypatch.setattr(edge_gradients, "find_entries", lambda _: whole)
    by_slot = edge_scores(lm, clean, corrupt, READOUT, keep_items=True).items
    assert split is not None
    assert chunked is not None
    assert by_slot is not None
    assert through_norms is not None
    assert summed is not None
    assert folded is not None
    assert torch.allclose(through_norms, split, rtol=1e-9, atol=1e-12, equal_nan=True)
    assert torch.allclose(summed, folded, rtol=1e-9, atol=1e-12, equal_nan=True)
    assert torch.allclose(chunked, split, rtol=1e-9, atol=1e-12, equal_nan=True)
    assert torch.allclose(by_slot, split, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "cohere", "granite", "opt", "deepseek_v3"])
def test_edges_that_leave_the_input_sum_to_the_whole_change_as_steps_grow(name: str) -> None:
    lm, (clean, corrupt) = model(name), pair()
    few, many = (
        edge_scores(lm, clean, corrupt, READOUT, "eap-ig-inputs", steps).completeness_error for steps in (4, 40)
    )
    assert many < 0.01
    assert many < few


@pytest.mark.parametrize("source", ["heads", "mlp"])
def test_what_one_layer_writes_is_complete_under_interpolated_activations(source: str) -> None:
    lm, (clean, corrupt) = model("gpt2"), pair()
    scores = edge_scores(lm, clean, corrupt, READOUT, "eap-ig-activations", 12)
    naive = NaiveEdges(lm, clean, corrupt, READOUT)
    layer = 0 if source == "heads" else 1
    rows = scores.graph.head_sources(0) if source == "heads" else slice(10, 11)
    module = naive.layers[layer].attn.c_proj if source == "heads" else naive.layers[layer].mlp  # type: ignore[union-attr]
    written = (naive.other.outputs if source == "heads" else naive.other.mlps)[layer]
    hook = module.register_forward_hook(lambda *_: written)
    changed = naive.readout_with({})
    hook.remove()
    whole = float((changed - scores.clean).mean())
    assert float(scores.matrix[rows].nansum()) == pytest.approx(whole, rel=1e-2)


def square(logits: Tensor) -> Tensor:
    """Of the logit of token 0, which is 1 after the clean prompt and 0 after the corrupt one."""
    return logits[:, 0] ** 2


@cache
def line() -> LanguageModel:
    """The logit of token 0 is what the embedding says of the last token: 1 of token 1, 0 of token 2; all else is 0."""
    hf = planted.uniform_model().double()
    hf.transformer.wpe.weight.data[:] = 0.0
    hf.transformer.ln_f = torch.nn.Identity()  # nothing bends the line
    for place, block in enumerate(hf.transformer.h):  # what differs in no prompt, so that the parts are told apart
        block.attn.c_proj.bias.data[10 + place] = 1.0
        block.mlp.c_proj.bias.data[20 + place] = 1.0
    hf.lm_head.weight.data[:] = 0.0
    hf.lm_head.weight.data[0, 1] = 1.0  # the coordinate of the embedding that token 1 sets
    return LanguageModel(hf.eval().requires_grad_(False), "line", None, "cpu")


SQUARES = [
    ("exact", "left", -1.0),
    ("eap", "left", -2.0),
    ("clean-corrupted", "left", -1.0),
    ("eap-ig-inputs", "left", -0.8),
    ("eap-ig-inputs", "right", -1.2),
    ("eap-ig-inputs", "midpoint", -1.0),
    ("eap-ig-activations", "left", -0.8),
    ("eap-ig-activations", "right", -1.2),
    ("eap-ig-activations", "midpoint", -1.0),
]


@pytest.mark.parametrize(("method", "rule", "expected"), SQUARES)
def test_a_square_has_the_known_scores(method: EdgeMethod, rule: Rule, expected: float) -> None:
    scores = edge_scores(line(), torch.tensor([[3, 1]]), torch.tensor([[3, 2]]), square, method, 5, rule)
    assert float(scores.matrix[0, -1]) == pytest.approx(expected, abs=1e-12)
    others = scores.matrix.clone()
    others[0, -1] = 0.0
    assert float(others.nan_to_num().abs().max()) == 0.0


@pytest.mark.parametrize("method", get_args(EdgeMethod))
def test_all_methods_are_exact_where_everything_is_linear(method: EdgeMethod) -> None:
    readout = Readout("logit", "logits", lambda logits, _, __: 3.0 * logits[:, 0])
    scores = edge_scores(line(), torch.tensor([[3, 1], [1, 2]]), torch.tensor([[3, 2], [1, 1]]), readout, method)
    assert scores.matrix[0, -1] == 0.0  # one falls by 3, one rises by 3
    assert torch.equal(scores.corrupt - scores.clean, torch.tensor([-3.0, 3.0], dtype=torch.float64))


@pytest.mark.parametrize("method", ["eap-ig-inputs", "exact"])
def test_the_planted_copier_s_path_has_the_top_edges(method: EdgeMethod) -> None:
    lm = LanguageModel(planted.copy_model(induction_scale=12.0).double().requires_grad_(False), "copier", None, "cpu")
    tokens = [planted.FIRST_ID, 10, 11, 12, 13, 14, 11]
    clean, corrupt = torch.tensor([tokens]), torch.tensor([[*tokens[:2], 20, *tokens[3:]]])
    scores = edge_scores(lm, clean, corrupt, logit_difference(torch.tensor([12]), torch.tensor([14])), method, 8)
    assert set(best(scores, 3)) == {"input->a0.h0<v>", "a0.h0->a1.h0<k>", "a1.h0->logits"}


def best(scores: EdgeScores, n_edges: int) -> list[str]:
    order = scores.matrix.abs().nan_to_num(-1.0).flatten().argsort(descending=True)[:n_edges].tolist()
    return scores.graph.edge_names([divmod(place, scores.graph.n_slots) for place in order])


def test_the_mean_over_items_does_not_depend_on_how_pairs_are_grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, (clean, corrupt) = model("gpt2"), pair()
    together = edge_scores(lm, clean, corrupt, READOUT, keep_items=True)
    monkeypatch.setattr(edge_scoring, "items_per_group", lambda *_: 1)
    alone = edge_scores(lm, clean, corrupt, READOUT, keep_items=True)
    assert together.items is not None
    assert alone.items is not None
    assert torch.allclose(alone.items, together.items, equal_nan=True)
    assert torch.allclose(together.matrix, together.items.mean(dim=0), equal_nan=True)
    assert torch.equal(together.matrix.isnan(), ~together.graph.legal)


def test_nothing_is_left_on_the_model() -> None:
    lm, (clean, corrupt) = model("gemma2"), pair()
    before = lm.logits(clean)
    for method in get_args(EdgeMethod):
        edge_scores(lm, clean, corrupt, READOUT, method, 1)
    assert torch.equal(lm.logits(clean), before)
    assert all(each.grad is None for each in lm.hf.parameters())


BAD = [
    ({"steps": 0}, "steps is 0: give a whole number of at least 1"),
    ({"method": "eap-ig"}, "method is 'eap-ig': choose one of eap, "),
    ({"rule": "middle"}, "rule is 'middle': choose one of left, "),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_unknown_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        edge_scores(model("gpt2"), *pair(), READOUT, **options)


def test_pairs_that_say_nothing_are_refused() -> None:
    lm, (clean, corrupt) = model("gpt2"), pair()
    with pytest.raises(BadInput, match="must align token by token"):
        edge_scores(lm, clean, Batch(corrupt.ids, torch.tensor([8, 7])), READOUT)
    with pytest.raises(BadInput, match="every corrupt prompt is its clean prompt"):
        edge_scores(lm, clean, clean, READOUT)
    padded = Batch(torch.where(clean.padding.bool(), clean.ids, 5), clean.lengths)
    with pytest.raises(BadInput, match="every corrupt prompt is its clean prompt"):
        edge_scores(lm, clean, padded, READOUT)


def test_a_readout_without_a_gradient_is_refused_but_for_exact() -> None:
    lm, (clean, corrupt) = model("gpt2"), pair()

    def best_token(logits: Tensor) -> Tensor:
        return logits.argmax(dim=1).double()

    with pytest.raises(BadInput, match="readout best_token has no gradient"):
        edge_scores(lm, clean, corrupt, best_token)
    assert edge_scores(lm, clean, corrupt, best_token, "exact").matrix.shape == (11, 27)


def test_models_outside_the_attention_interface_and_half_precision_are_refused() -> None:
    outside = LanguageModel(tiny("bloom"), "bloom", None, "cpu")
    with pytest.raises(NotApplicable):
        edge_scores(outside, *pair(), READOUT)
    half = LanguageModel(tiny("gpt2").to(torch.float16), "half", None, "cpu")
    with pytest.raises(BadInput, match="half is loaded in float16"):
        edge_scores(half, *pair(), READOUT)


def test_shares_run_from_the_corrupt_to_the_clean_end() -> None:
    assert shares("eap-ig-inputs", 4, "left") == [0.0, 0.25, 0.5, 0.75]
    assert shares("eap-ig-inputs", 4, "right") == [0.25, 0.5, 0.75, 1.0]
    assert shares("eap-ig-activations", 2, "midpoint") == [0.25, 0.75]
    assert (shares("eap", 4, "left"), shares("clean-corrupted", 4, "left")) == ([1.0], [0.0, 1.0])


def test_half_a_model_in_integers_is_refused() -> None:
    """A linear layer whose weight is a buffer of integers beside its scale, as several tools store it."""
    hf = tiny("llama")
    hf.model.layers[1].mlp.register_buffer("qweight", torch.zeros(4, 4, dtype=torch.int32))
    packed = LanguageModel(hf, "packed", None, "cpu")
    with pytest.raises(BadInput, match=r"packed holds integer weights \(model\.layers\.1\.mlp\.qweight\)"):
        edge_scores(packed, *pair(), READOUT)


SPLIT: list[EdgeMethod] = ["eap", "clean-corrupted", "eap-ig-inputs", "eap-ig-activations"]


@pytest.mark.parametrize("method", SPLIT)
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_positions_sum_to_the_whole_by_gradients(
    name: str, method: EdgeMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, (clean, corrupt) = model(name), pair()
    scores = edge_scores(lm, clean, corrupt, READOUT, method, 2, positions="each")
    assert scores.by_position is not None
    n_with = torch.tensor([2.0] * 6 + [1.0] * 2)  # the second prompt has 6 tokens
    total = (scores.by_position * n_with[:, None, None]).sum(dim=0) / 2
    assert torch.allclose(total, scores.matrix, rtol=1e-9, atol=1e-12, equal_nan=True)
    monkeypatch.setattr(edge_gradients, "CHUNK_ELEMENTS", 1)
    monkeypatch.setattr(edge_scoring, "items_per_group", lambda *_: 1)
    pieces = edge_scores(lm, clean, corrupt, READOUT, method, 2, positions="each").by_position
    assert pieces is not None
    assert torch.allclose(pieces, scores.by_position, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_one_position_of_an_edge_is_what_a_plain_forward_gives_it() -> None:
    lm, (clean, corrupt) = model("gemma2"), pair()
    labelled = replace(clean, labels={"there": torch.tensor([3, 2]), "end": clean.lengths - 1})
    exact = edge_scores(lm, labelled, corrupt, READOUT, "exact", positions=["there", "end"]).by_position
    eap = edge_scores(lm, labelled, corrupt, READOUT, positions=["there", "end"]).by_position
    assert exact is not None
    assert eap is not None
    naive = NaiveEdges(lm, clean, corrupt, READOUT)
    graph = edge_scores(lm, clean, corrupt, READOUT).graph
    for place, label in enumerate(labelled.labels):
        at = (torch.arange(8) == labelled.labels[label][:, None])[:, :, None]
        for source, slot in [(0, 3), (2, 13 + 5), (5, 13 + 11), (3, 12), (8, 26)]:
            names = graph.sources[source], graph.slots[slot]
            with torch.no_grad():
                whole = naive.readout_with({names[1]: at * naive.change(names[0])}) - naive.readout_with({})
            assert float(exact[place, source, slot]) == pytest.approx(float(whole.mean()), rel=1e-6, abs=1e-9), names
            share = torch.zeros((), dtype=torch.float64, requires_grad=True)
            values = naive.readout_with({names[1]: at * naive.change(names[0], share)})
            slope = torch.autograd.grad(values.mean(), share)[0]
            assert float(eap[place, source, slot]) == pytest.approx(float(slope), rel=1e-6, abs=ROUNDED), names


def test_a_position_that_no_prompt_has_is_missing() -> None:
    lm, (clean, corrupt) = model("gpt2"), pair()
    wide = [Batch(torch.nn.functional.pad(each.ids, (0, 1)), each.lengths) for each in (clean, corrupt)]
    scores = edge_scores(lm, *wide, READOUT, positions="each")
    assert scores.by_position is not None
    assert scores.by_position.shape == (9, *scores.matrix.shape)
    assert bool(scores.by_position[8].isnan().all())
    assert torch.equal(scores.by_position[7].isnan(), ~scores.graph.legal)
    assert edge_scores(lm, clean, corrupt, READOUT).by_position is None
    with pytest.raises(BadInput, match="position label 'nowhere' is unknown"):
        edge_scores(lm, clean, corrupt, READOUT, positions=["nowhere"])


@pytest.mark.parametrize("method", get_args(EdgeMethod))
def test_shared_keys_and_values_score_the_sum_of_their_readers_to_first_order(method: EdgeMethod) -> None:
    lm, (clean, corrupt) = model("llama"), pair()
    apart = edge_scores(lm, clean, corrupt, READOUT, method, 2)
    shared = edge_scores(lm, clean, corrupt, READOUT, method, 2, kv="grouped")
    assert shared.graph == EdgeGraph.sized(2, 4, 2)
    assert shared.matrix.shape == (11, 2 * (4 + 2 * 2 + 1) + 1)
    summed = torch.cat([
        torch.cat([
            apart.matrix[:, start : start + 4],
            apart.matrix[:, start + 4 : start + 12].unflatten(1, (4, 2)).sum(dim=2),
            apart.matrix[:, start + 12 : start + 13],
        ], dim=1)
        for start in (0, 13)
    ] + [apart.matrix[:, -1:]], dim=1)  # fmt: skip
    is_kv = torch.tensor([name[-3:] in ("<k>", "<v>") for name in shared.graph.slots])
    assert torch.allclose(shared.matrix[:, ~is_kv], summed[:, ~is_kv], rtol=1e-5, atol=1e-7, equal_nan=True)
    same = torch.allclose(shared.matrix[:, is_kv], summed[:, is_kv], rtol=1e-5, atol=1e-7, equal_nan=True)
    assert same == (method != "exact")


def test_a_shared_value_changed_exactly_is_all_its_readers_changed() -> None:
    lm, (clean, corrupt) = model("llama"), pair()
    naive = NaiveEdges(lm, clean, corrupt, READOUT)
    exact = edge_scores(lm, clean, corrupt, READOUT, "exact", kv="grouped")
    change = naive.change("m0")
    for part in ("k", "v"):
        with torch.no_grad():
            both = naive.readout_with({f"a1.h2<{part}>": change, f"a1.h3<{part}>": change}) - exact.clean
        place = exact.graph.sources.index("m0"), exact.graph.slots.index(f"a1.h1<{part}>")
        assert float(exact.matrix[place]) == pytest.approx(float(both.mean()), rel=1e-6)


def test_a_grouped_circuit_runs_as_the_edges_of_all_its_readers() -> None:
    lm, (clean, corrupt) = model("llama"), pair()
    shared = find_circuit(edge_scores(lm, clean, corrupt, READOUT, "eap-ig-inputs", kv="grouped"), 60)
    apart = ungrouped(shared)
    assert apart.graph == EdgeGraph.sized(2, 4)
    names = shared.edge_names()
    expected = [name for name in names if "<k>" not in name and "<v>" not in name]
    for name in set(names) - set(expected):
        slot, part = name.rsplit("<", 1)
        front, head = slot.rsplit("h", 1)
        expected += [f"{front}h{2 * int(head) + sharer}<{part}" for sharer in range(2)]
    assert sorted(apart.edge_names()) == sorted(expected)
    with pytest.raises(BadInput, match="circuit 0 is of another graph"):
        faithfulness(lm, clean, corrupt, READOUT, [shared])
    assert faithfulness(lm, clean, corrupt, READOUT, [apart]).n_edges.tolist() == [len(expected)]


def test_how_the_layers_of_a_model_read_is_found_once() -> None:
    lm = LanguageModel(tiny("llama"), "llama", None, "cpu")
    first, forwards = find_entries(lm), lm.forwards
    assert find_entries(lm) is first
    assert lm.forwards == forwards
    other = LanguageModel(tiny("llama"), "llama", None, "cpu")
    assert find_entries(other)[0].norm is not first[0].norm
