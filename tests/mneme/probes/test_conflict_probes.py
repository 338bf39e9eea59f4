"""Memory against context: two planted heads at odds, naive recomputations in float64, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from mneme.attribution import direct_logit_attribution
from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.head_order import order_of_heads, split_items
from mneme.interception import AttentionCall, handled
from mneme.measuring import measure
from mneme.model import LanguageModel
from mneme.primary_readout import primary_readout
from mneme.probe import probes
from mneme.promptset import Promptset
from tests import references
from tests.architectures import VOCABULARY, tiny
from tests.conflict_prompts import conflict_prompts
from tests.planted import conflict_model

CONTEXT_HEAD, MEMORY_HEAD = (0, 0), (0, 1)
NAMES = ["gpt2", "gpt_neox", "qwen2", "gemma2"]


@cache
def planted(context: float = 3.0, memory: float = 2.0) -> LanguageModel:
    return LanguageModel(conflict_model(context, memory), "planted", None, "cpu")


@cache
def small(name: str) -> LanguageModel:
    return LanguageModel(tiny(name, torch.float64), name, None, "cpu")


def drawn(n_items: int = 6) -> Promptset:
    """Random prompts of several lengths with two answers, in which no label says where a question begins."""
    clean, corrupt = torch.randint(3, VOCABULARY, (2, n_items, 9), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([9, 8, 9, 7, 9, 8])[:n_items]
    answers = torch.randint(3, VOCABULARY, (2, n_items, 1), generator=torch.Generator().manual_seed(1))
    return Promptset(Batch(clean, lengths), Batch(corrupt, lengths), answers[0], answers[1] % 36 + 1)


def curves(name: str, prompts: Promptset, lm: LanguageModel, **parameters: object) -> dict[str, Tensor]:
    """Each curve's values [item point], and x of the first as `x`."""
    found = measure(probes.get(name), parameters, prompts, lm=lm)
    values = {key.split(".")[1]: each for key, each in found.items() if key.endswith(".values")}
    return values | {"x": next(each for key, each in found.items() if key.endswith(".x"))}


def of_tested(values: Tensor) -> Tensor:
    return values[~values.isnan().all(dim=1)]


@pytest.mark.parametrize(("memory", "said"), [(2.0, "context"), (4.0, "memory"), (3.0, "other")])
def test_the_rates_say_which_head_is_stronger(memory: float, said: str) -> None:
    prompts = conflict_prompts(n_unknown=2)
    for kind in ("context", "memory", "other"):
        values = measure(probes.get(f"{kind}_rate"), {}, prompts, lm=planted(memory=memory))["values"]
        assert values[:6].tolist() == [float(kind == said)] * 6
        assert values[6:].isnan().all(), "the model does not know these"


def test_closed_book_only_the_facts_of_the_memory_head_are_known() -> None:
    member = probes.get("closed_book_accuracy")
    prompts = conflict_prompts(n_unknown=2)
    assert measure(member, {}, prompts, lm=planted())["values"].tolist() == [1.0] * 6 + [0.0] * 2
    assert measure(member, {}, prompts, lm=planted(memory=0.0))["values"].tolist() == [0.0] * 8
    unlabelled = replace(prompts, clean=replace(prompts.clean, labels={}))
    with pytest.raises(NotApplicable, match="label question_first"):
        measure(member, {}, unlabelled, lm=planted())


def test_importance_is_what_each_head_writes_and_separates_the_two() -> None:
    lm, prompts = planted(), conflict_prompts(n_unknown=1)
    clean = references.read(primary_readout(prompts), references.stock_logits(lm, prompts.clean), prompts.clean)
    for rank_by in ("path_patching", "attribution"):
        found = measure(probes.get("ph3_importance"), {"rank_by": rank_by}, prompts, lm=lm)["scores"]
        expected = torch.zeros(2, 4)
        expected[CONTEXT_HEAD], expected[MEMORY_HEAD] = 3, -2
        share = found[:7] / clean[:7, None, None]
        torch.testing.assert_close(share, expected.expand(7, -1, -1), atol=1e-4, rtol=0)
        assert found[7].isnan().all()
    ablated = measure(probes.get("ph3_importance"), {"rank_by": "ablation"}, prompts, lm=lm)["scores"][:7].mean(dim=0)
    assert ablated[CONTEXT_HEAD] > 1
    assert ablated[MEMORY_HEAD] < -1
    others = torch.cat([ablated[0, 2:], ablated[1]])
    assert others.tolist() == [0.0] * 6


def test_importance_by_gradient_is_the_size_of_the_gradient_times_the_change_in_the_corrupt_run() -> None:
    lm, prompts = small("gpt2"), drawn()
    assert prompts.corrupt is not None
    clean_z, corrupt_z = references.all_z(lm, prompts.clean), references.all_z(lm, prompts.corrupt)
    leaves = [torch.zeros_like(each, requires_grad=True) for each in clean_z]
    with handled(lm.attention_modules, lambda call: call.compute() + leaves[call.layer]):
        logits = lm.hf(input_ids=prompts.clean.ids, use_cache=False).logits
    assert prompts.correct_ids is not None
    assert prompts.wrong_ids is not None
    last = logits[torch.arange(6), prompts.clean.lengths - 1]
    difference = (last.gather(1, prompts.correct_ids) - last.gather(1, prompts.wrong_ids)).sum()
    gradients = torch.autograd.grad(difference, leaves)
    parts = zip(gradients, clean_z, corrupt_z, strict=True)
    expected = torch.stack([(slope * (here - there)).sum(dim=(1, 3)) for slope, here, there in parts], dim=1)
    found = measure(probes.get("ph3_importance"), {"rank_by": "gradient"}, prompts, lm=lm)["scores"]
    torch.testing.assert_close(found.to(expected), expected.detach())


def test_memory_heads_come_first_with_the_other_sign() -> None:
    lm, prompts = planted(), conflict_prompts(n_unknown=1)
    member = probes.get("ph3_importance")
    found, turned = (measure(member, {"heads": each}, prompts, lm=lm)["scores"] for each in ("context", "memory"))
    assert torch.equal(found[:7], -turned[:7])
    assert turned[7].isnan().all()
    assert order_of_heads(turned)[0] == MEMORY_HEAD
    assert order_of_heads(found)[0] == CONTEXT_HEAD


def test_gradients_and_paths_need_corrupt_prompts() -> None:
    bare = replace(conflict_prompts(), corrupt=None)
    for name, words in (("gradient", "ranking by gradient needs"), ("path_patching", "ranking by path patching needs")):
        with pytest.raises(NotApplicable, match=words):
            measure(probes.get("ph3_importance"), {"rank_by": name}, bare, lm=planted())


def test_scaling_the_context_head_flips_to_memory_exactly_below_two_thirds() -> None:
    alphas = [-5, -1, 0, 0.5, 0.66, 0.67, 0.7, 2, 5]
    found = curves("value_scaling", conflict_prompts(n_unknown=1), planted(), alphas=alphas)
    assert found["x"].tolist() == sorted([*alphas, 1.0])
    is_context = [float(each > 2 / 3) for each in found["x"]]
    for values in of_tested(found["context_rate"]):
        assert values.tolist() == is_context
    assert torch.equal(of_tested(found["memory_rate"]), 1 - of_tested(found["context_rate"]))
    assert float(of_tested(found["other_rate"]).abs().max()) == 0
    assert float(of_tested(found["closed_book_rate"]).min()) == 1, "the context head writes nothing to a question alone"
    assert torch.equal(of_tested(found["logit_difference"]) > 0, of_tested(found["context_rate"]) == 1)
    assert of_tested(found["layer"]).unique().tolist() == [0]
    assert of_tested(found["head"]).unique().tolist() == [0]


def test_scaling_the_memory_head_flips_to_memory_exactly_above_three_halves() -> None:
    found = curves("value_scaling", conflict_prompts(), planted(), head="memory", alphas=[-2, 0, 1.4, 1.6, 3])
    assert of_tested(found["memory_rate"]).unique(dim=0).tolist() == [[0, 0, 0, 0, 1, 1]]
    assert of_tested(found["head"]).unique().tolist() == [1]
    assert of_tested(found["closed_book_rate"]).unique(dim=0).tolist() == [[0, 0, 1, 1, 1, 1]]


def test_a_tie_is_another_answer_and_alpha_one_is_the_unchanged_model_bit_for_bit() -> None:
    lm, prompts = planted(4.0, 2.0), conflict_prompts()
    found = curves("value_scaling", prompts, lm, head=[0, 0], alphas=[0.5])
    assert of_tested(found["other_rate"]).unique(dim=0).tolist() == [[1, 0]]
    clean = measure(probes.get("logit_difference"), {}, prompts, lm=lm)["values"]
    assert torch.equal(found["logit_difference"][:, 1].float(), clean)
    assert torch.equal(found["control_logit_difference"][:, 1].float(), clean)


def test_controls_are_the_other_heads_of_the_layer_one_at_a_time() -> None:
    found = curves("value_scaling", conflict_prompts(), planted(), alphas=[0, 2])
    assert of_tested(found["control_context_rate"]).unique(dim=0).tolist() == [[1, 1, pytest.approx(2 / 3)]]
    assert of_tested(found["control_memory_rate"]).unique(dim=0).tolist() == [[0, 0, pytest.approx(1 / 3)]]


def test_a_control_of_matched_norm_moves_as_far_as_the_tested_head() -> None:
    found = curves("value_scaling", conflict_prompts(), planted(), alphas=[1.6], is_norm_matched=True)
    # the memory head's norm is 2, the context head's 3: it is scaled by 1 + 0.6 * 3 / 2 = 1.9 and then writes 3.8
    assert of_tested(found["control_memory_rate"])[:, 1].unique().tolist() == [pytest.approx(1 / 3)]
    plain = curves("value_scaling", conflict_prompts(), planted(), alphas=[1.4])  # 2.8, less than 3
    assert of_tested(plain["control_memory_rate"])[:, 1].unique().tolist() == [0]
    matched = curves("value_scaling", conflict_prompts(), planted(), alphas=[1.4], is_norm_matched=True)  # 3.2
    assert of_tested(matched["control_memory_rate"])[:, 1].unique().tolist() == [pytest.approx(1 / 3)]


def test_pruning_the_heads_of_one_answer_gives_the_other_and_random_heads_do_nothing() -> None:
    for strengths, kind, left in (((3.0, 2.0), "context", "memory"), ((2.0, 3.0), "memory", "context")):
        for rank_by in ("path_patching", "attribution", "ablation", "gradient"):
            lm, prompts = planted(*strengths), conflict_prompts()
            found = curves("conflict_pruning", prompts, lm, heads=kind, rank_by=rank_by, ks=[1], n_draws=5)
            assert found["x"].tolist() == [0, 1]
            assert of_tested(found[f"{kind}_rate"]).unique(dim=0).tolist() == [[1, 0]]
            assert of_tested(found[f"{left}_rate"]).unique(dim=0).tolist() == [[0, 1]]
            assert of_tested(found[f"control_{kind}_rate"]).unique(dim=0).tolist() == [[1, 1]]
            assert of_tested(found["closed_book_rate"]).unique(dim=0).tolist() == [[1, float(kind == "context")]]
            head = CONTEXT_HEAD if kind == "context" else MEMORY_HEAD
            assert (int(of_tested(found["layer"])[0]), int(of_tested(found["head"])[0])) == head


def test_controls_are_missing_where_no_other_head_is_left() -> None:
    found = curves("conflict_pruning", conflict_prompts(), planted(), rank_by="attribution", ks=[4, 8])
    assert of_tested(found["context_rate"]).shape == (4, 3)
    assert found["control_context_rate"][:, 2].isnan().all()


def test_heads_are_chosen_on_prompts_that_are_not_tested() -> None:
    prompts = conflict_prompts()
    chosen_on = split_items(prompts, 0)
    few: dict[str, dict[str, object]] = {
        "value_scaling": {"alphas": [1]},
        "conflict_pruning": {"ks": [1], "n_draws": 1},
    }
    for name in few:
        found = curves(name, prompts, planted(), **few[name])["context_rate"]
        assert torch.equal(found.isnan().all(dim=1), chosen_on)
        by_place = curves(name, prompts, planted(), held_out="place", **few[name])["context_rate"]
        assert torch.equal(by_place.isnan().all(dim=1), prompts.conditions["place"] == 0)
    named = curves("value_scaling", prompts, planted(), head=[0, 1], alphas=[1])["context_rate"]
    assert not named.isnan().any()


def test_without_a_label_of_the_question_all_prompts_count_and_no_book_is_closed() -> None:
    prompts = conflict_prompts(n_unknown=4)
    unlabelled = replace(prompts, clean=replace(prompts.clean, labels={}))
    found = curves("value_scaling", unlabelled, planted(), head=[0, 0])
    assert not found["context_rate"].isnan().any()
    assert found["closed_book_rate"].isnan().all()
    pruned = curves("conflict_pruning", unlabelled, planted())
    assert len(of_tested(pruned["context_rate"])) == 4
    assert pruned["closed_book_rate"].isnan().all()


def said(logits: Tensor, prompts: Promptset) -> list[str]:
    """The outcome of each prompt, one row of logits at a time."""
    assert prompts.correct_ids is not None
    assert prompts.wrong_ids is not None
    found = []
    for row, correct, wrong in zip(logits, prompts.correct_ids, prompts.wrong_ids, strict=True):
        best = [index for index, logit in enumerate(row.tolist()) if logit == float(row.max())]
        found.append("context" if best == correct.tolist() else "memory" if best == wrong.tolist() else "other")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_scaling_equals_full_forwards_with_one_head_scaled_at_the_end(name: str) -> None:
    lm, prompts = small(name), drawn()
    last, items = prompts.clean.lengths - 1, torch.arange(6)
    alphas, layer, head = [-5.0, 0.0, 5.0], 1, 2
    found = curves("value_scaling", prompts, lm, head=[layer, head], alphas=alphas)
    for alpha in alphas:

        def change(here: int, z: Tensor, alpha: float = alpha, heads: tuple[int, ...] = (head,)) -> Tensor:
            if here == layer:
                z[items, last, head] *= alpha
            return z

        with references.changed_heads(lm, change):
            logits = references.stock_logits(lm, prompts.clean)
        at = found["x"].tolist().index(alpha)
        expected = references.read(primary_readout(prompts), logits, prompts.clean)
        assert torch.allclose(found["logit_difference"][:, at].to(expected), expected, atol=1e-4)
        outcomes = said(logits[items, last], prompts)
        for kind in ("context", "memory", "other"):
            assert found[f"{kind}_rate"][:, at].tolist() == [float(each == kind) for each in outcomes]


def test_the_scaled_head_is_the_one_that_writes_most_on_the_other_half() -> None:
    lm, prompts = small("gpt2"), drawn()
    assert prompts.correct_ids is not None
    assert prompts.wrong_ids is not None
    parts = direct_logit_attribution(lm, prompts.clean, prompts.correct_ids, prompts.wrong_ids)["heads"]
    mean = parts[split_items(prompts, 0)].mean(dim=0).flatten()
    for kind, flat in (("context", int(mean.argmax())), ("memory", int(mean.argmin()))):
        found = curves("value_scaling", prompts, lm, head=kind, alphas=[1])
        assert (int(of_tested(found["layer"])[0]), int(of_tested(found["head"])[0])) == divmod(flat, 4)


@pytest.mark.parametrize("name", NAMES)
def test_importance_equals_full_forwards_with_every_other_head_frozen(name: str) -> None:
    lm, prompts = small(name), drawn()
    assert prompts.corrupt is not None
    readout = primary_readout(prompts)
    clean_z, corrupt_z = references.all_z(lm, prompts.clean), references.all_z(lm, prompts.corrupt)
    clean = references.read(readout, references.stock_logits(lm, prompts.clean), prompts.clean)
    found = measure(probes.get("ph3_importance"), {}, prompts, lm=lm)["scores"]
    for layer, head in ((0, 1), (1, 3), (2, 0)):

        def freeze(call: AttentionCall, layer: int = layer, head: int = head) -> Tensor:
            z = clean_z[call.layer].clone()
            if call.layer == layer:
                z[:, :, head] = corrupt_z[layer][:, :, head]
            return z

        with handled(lm.attention_modules, freeze):
            patched = references.read(
                readout, lm.hf(input_ids=prompts.clean.ids, use_cache=False).logits, prompts.clean
            )
        assert torch.allclose(found[:, layer, head].to(clean), clean - patched, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_pruning_equals_full_forwards_with_the_named_heads_zeroed(name: str) -> None:
    lm, prompts = small(name), drawn()
    found = curves("conflict_pruning", prompts, lm, ks=[2, 3], n_draws=1)
    order = [(int(of_tested(found["layer"])[0, rank]), int(of_tested(found["head"])[0, rank])) for rank in range(3)]
    last, items = prompts.clean.lengths - 1, torch.arange(6)
    for at, k in enumerate((0, 2, 3)):

        def change(here: int, z: Tensor, k: int = k) -> Tensor:
            for _, head in (each for each in order[:k] if each[0] == here):
                z[:, :, head] = 0
            return z

        with references.changed_heads(lm, change):
            outcomes = said(references.stock_logits(lm, prompts.clean)[items, last], prompts)
        kept = ~found["context_rate"].isnan().all(dim=1)
        for kind in ("context", "memory", "other"):
            expected = torch.tensor([float(each == kind) for each in outcomes])[kept]
            assert torch.equal(found[f"{kind}_rate"][kept, at].float(), expected)


def test_layers_beside_each_other_add_up_to_the_difference_where_nothing_else_writes() -> None:
    lm, prompts = planted(), conflict_prompts(n_unknown=1)
    found = curves("mlp_attribution", prompts, lm, is_conflict=True)
    clean = references.read(primary_readout(prompts), references.stock_logits(lm, prompts.clean), prompts.clean)
    assert found["attention_attribution"][7].isnan().all()
    torch.testing.assert_close(found["attention_attribution"][:7, 0].float(), clean[:7], atol=1e-3, rtol=1e-5)
    assert float(found["attention_attribution"][:7, 1].abs().max()) == 0
    assert float(found["mlp_attribution"][:7].abs().max()) == 0
    assert float(found["mlp_ablation"][:7].abs().max()) == 0
    assert float(found["attention_ablation"][:7, 0].min()) > 0.5


def test_attributions_of_layers_are_the_sums_of_their_parts() -> None:
    lm, prompts = small("gemma2"), drawn()
    found = curves("mlp_attribution", prompts, lm)
    assert prompts.correct_ids is not None
    assert prompts.wrong_ids is not None
    parts = direct_logit_attribution(lm, prompts.clean, prompts.correct_ids, prompts.wrong_ids)
    attention = parts["heads"].sum(dim=2) + parts["attention_bias"]
    torch.testing.assert_close(found["mlp_attribution"].to(parts["mlps"]), parts["mlps"])
    torch.testing.assert_close(found["attention_attribution"].to(attention), attention)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("value_scaling", {"alphas": []}, "give a list of numbers"),
        ("value_scaling", {"alphas": "all"}, "value_scaling.alphas is 'all': give a list of numbers"),
        ("value_scaling", {"alphas": [1, float("nan")]}, "give a list of numbers"),
        ("value_scaling", {"head": "best"}, "value_scaling.head is 'best': choose one of context, memory"),
        ("value_scaling", {"head": [0]}, "value_scaling.head is"),
        ("value_scaling", {"head": 3}, "value_scaling.head is 3"),
        ("value_scaling", {"head": [0, 4]}, r"value_scaling.head\[1\] is 4: give a whole number from 0 to 3"),
        ("value_scaling", {"held_out": "depth"}, "value_scaling.held_out is 'depth': .* which have place"),
        ("conflict_pruning", {"ks": []}, "conflict_pruning.ks is"),
        ("conflict_pruning", {"ks": [9]}, "conflict_pruning.ks is 9: give a whole number from 1 to 8"),
        ("conflict_pruning", {"heads": "both"}, "conflict_pruning.heads is 'both'"),
        ("conflict_pruning", {"rank_by": "gradients"}, "rank_by is 'gradients': choose one of path_patching"),
        ("conflict_pruning", {"n_draws": 0}, "conflict_pruning.n_draws is 0"),
        ("ph3_importance", {"rank_by": "size"}, "rank_by is 'size'"),
        ("ph3_importance", {"heads": "both"}, "ph3_importance.heads is 'both': choose one of context, memory"),
        ("mlp_attribution", {"position": "start"}, "position label 'start' is unknown"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(name: str, parameters: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        measure(probes.get(name), parameters, conflict_prompts(), lm=planted())


def test_prompts_that_are_no_conflict_do_not_apply() -> None:
    for name in ("context_rate", "ph3_importance", "value_scaling", "conflict_pruning", "mlp_attribution"):
        with pytest.raises(NotApplicable, match="answers"):
            measure(probes.get(name), {}, replace(conflict_prompts(), wrong_ids=None), lm=planted())
    for name in ("ph3_importance", "conflict_pruning"):
        with pytest.raises(NotApplicable, match="no corrupt ones"):
            measure(probes.get(name), {}, replace(conflict_prompts(), corrupt=None), lm=planted())
    for name in ("value_scaling", "conflict_pruning"):
        with pytest.raises(NotApplicable, match="the model knows 0 of 8 closed book"):
            measure(probes.get(name), {}, conflict_prompts(n_unknown=8), lm=planted())


def test_a_named_head_of_a_model_that_knows_nothing_does_not_apply() -> None:
    with pytest.raises(NotApplicable, match="none of the memorised answers"):
        measure(probes.get("value_scaling"), {"head": [0, 0]}, conflict_prompts(n_unknown=8), lm=planted())


def test_a_condition_that_is_the_same_everywhere_holds_nothing_out() -> None:
    prompts = replace(conflict_prompts(), conditions={"place": torch.zeros(8, dtype=torch.float64)})
    for name in ("value_scaling", "conflict_pruning"):
        with pytest.raises(NotApplicable, match="all prompts have one place"):
            measure(probes.get(name), {"held_out": "place"}, prompts, lm=planted())


def test_a_model_without_heads_for_an_answer_does_not_apply() -> None:
    with pytest.raises(NotApplicable, match="no head of planted writes for the answer of the context"):
        measure(probes.get("value_scaling"), {}, conflict_prompts(), lm=planted(0.0, 2.0))
