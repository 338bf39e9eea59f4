"""Heads of indirect objects: planted ones are found in their class, and knocked out as a slow reference does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.ioi_circuit import (
    Search,
    best_contexts,
    circuits_compared,
    greedy_removals,
    incompleteness,
    random_circuits,
    remembering,
    removal_costs,
    sampled_removals,
)
from mneme.ioi_classes import (
    LABELS,
    NAIVE,
    ROLES,
    Evidence,
    Least,
    abc_of,
    classes_of,
    find_evidence,
    members_of,
    nodes_of,
)
from mneme.knock_out import EMPTY, WHOLE, Kept, TemplateMeans, instead_of_heads, knock_out, template_means, templates_of
from mneme.model import LanguageModel, load_model
from mneme.named_attention import attention_between
from mneme.primary_readout import primary_readout
from mneme.probes.ioi_circuit import ioi_circuit
from mneme.promptset import Promptset
from mneme.promptsets.ioi import ioi
from mneme.readouts import logit_difference
from tests.architectures import tiny
from tests.ioi_prompts import ioi_prompts
from tests.planted import ioi_circuit_model, ioi_model, save
from tests.references import all_z, changed_heads, read, stock_logits
from tests.scene_vocabularies import word_vocabulary

MOVER, NEGATIVE, INHIBITION, PREVIOUS, DUPLICATE = (1, 0), (1, 1), (0, 1), (0, 2), (0, 3)
LEAST = Least(attention=0.4)  # on eight tokens a third is what uniform attention gives


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(save(ioi_model(), tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def prompts() -> Promptset:
    return ioi_prompts(16)


@pytest.fixture(scope="module")
def means(lm: LanguageModel, prompts: Promptset) -> TemplateMeans:
    return template_means(lm, abc_of(prompts), templates_of(prompts, LABELS))


@pytest.fixture(scope="module")
def found(lm: LanguageModel, prompts: Promptset, means: TemplateMeans) -> Evidence:
    return find_evidence(lm, prompts, means, LEAST)


def test_counting_names_gives_half_nothing_and_minus_half() -> None:
    """METHODS 5a: the logit of a name is 1 / its count, 0 where it does not stand."""
    for corrupt, known in (("abc", 0.0), ("s2_to_io", -0.5)):
        made = ioi(word_vocabulary("ioi"), seed=0, n_items=20, distractors="none", corrupt=corrupt)
        assert made.corrupt is not None
        assert made.correct_ids is not None
        assert made.wrong_ids is not None
        readout = logit_difference(made.correct_ids, made.wrong_ids)
        for batch, expected in ((made.clean, 0.5), (made.corrupt, known)):
            counts = torch.zeros(20, 2000)
            for item in range(20):
                counts[item].index_add_(0, batch.ids[item, : batch.lengths[item]], torch.ones(int(batch.lengths[item])))
            logits = torch.where(counts > 0, 1 / counts, 0.0)
            assert torch.equal(readout(logits), torch.full((20,), expected))


def test_each_planted_head_is_found_in_its_class(found: Evidence) -> None:
    assert classes_of(found, LEAST) == {
        "name_mover": [MOVER],
        "negative_mover": [NEGATIVE],
        "backup_mover": [],
        "s_inhibition": [INHIBITION],
        "induction": [PREVIOUS],  # with one word between two names, the token before S2 is no S1 + 1 in one order only
        "duplicate_token": [DUPLICATE],
        "previous_token": [PREVIOUS],
    }


def test_a_head_of_every_class_is_found_in_it_and_in_no_other(tmp_path: Path) -> None:
    """METHODS 5a: name, negative and backup movers, S-inhibition, induction, duplicate and previous token."""
    lm, made = load_model(save(ioi_circuit_model(), tmp_path)), ioi_prompts(16, gap=2)
    template = templates_of(made, LABELS)
    means = template_means(lm, abc_of(made), template)
    found = find_evidence(lm, made, means, LEAST)
    assert classes_of(found, LEAST) == {
        "name_mover": [(1, 0)],
        "negative_mover": [(1, 1)],
        "backup_mover": [(2, 0)],
        "s_inhibition": [(0, 1)],
        "induction": [(1, 2)],
        "duplicate_token": [(0, 2)],
        "previous_token": [(0, 0)],
    }
    assert float(found.direct[2, 0]) == pytest.approx(0.0, abs=0.02)  # the backup is silent while the mover speaks
    assert float(found.backup[2, 0]) > 1.0
    scores = {each.role: (each.score, each.least) for each in members_of(found, LEAST)}
    assert scores["negative_mover"] == (-float(found.direct[1, 1]), 0.05)
    assert scores["s_inhibition"] == (pytest.approx(4 / 3, abs=1e-4), 0.05)
    assert scores["duplicate_token"] == (pytest.approx(0.5, abs=1e-4), 0.4)
    run = knock_out(lm, made.clean, primary_readout(made), [WHOLE, WHOLE.without([(1, 0, "end")])], means).mean(dim=0)
    assert float(run[1]) > 0.5 * float(run[0])  # the backup stands in: without the mover most is left


def test_the_evidence_of_planted_heads_is_known_by_hand(found: Evidence) -> None:
    assert float(found.to_io[MOVER]) == pytest.approx(1.0, abs=1e-5)
    assert float(found.to_s[MOVER]) == pytest.approx(0.0, abs=1e-5)
    assert float(found.tracking[MOVER]) == pytest.approx(1.0, abs=1e-5)
    assert float(found.tracking[NEGATIVE]) == pytest.approx(-1.0, abs=1e-5)
    assert float(found.copying[MOVER]) == 1.0
    assert float(found.copying[NEGATIVE]) == 0.0
    # without the word of L0H1 the mover sees three names alike: 1 - 0 becomes 1/3 - 2/3
    assert float(found.inhibition[INHIBITION]) == pytest.approx(4 / 3, abs=1e-4)
    assert bool(found.inhibition[1].isnan().all())
    assert float(found.duplicate[DUPLICATE]) == pytest.approx(0.5, abs=1e-4)
    assert float(found.previous[PREVIOUS]) == pytest.approx(1.0, abs=1e-4)
    assert float(found.direct[NEGATIVE]) < 0
    assert float(found.direct[MOVER]) > 1


def test_a_backup_is_a_head_that_matters_once_the_movers_are_out(found: Evidence) -> None:
    backup = found.backup.clone()
    backup[1, 2] = 0.2
    to_io = found.to_io.clone()
    to_io[1, 2] = 0.9
    assert classes_of(replace(found, backup=backup, to_io=to_io), LEAST)["backup_mover"] == [(1, 2)]
    assert classes_of(replace(found, backup=backup), LEAST)["backup_mover"] == []


def test_the_planted_circuit_keeps_everything_up(
    lm: LanguageModel, prompts: Promptset, means: TemplateMeans, found: Evidence
) -> None:
    classes = classes_of(found, LEAST)
    readout = primary_readout(prompts)
    circuits = [WHOLE, Kept(nodes_of(classes)), EMPTY, Kept(nodes_of(classes, NAIVE))]
    whole, circuit, empty, naive = knock_out(lm, prompts.clean, readout, circuits, means).mean(dim=0).tolist()
    assert circuit == pytest.approx(whole, rel=1e-4)
    assert abs(empty) < 0.05 * whole
    assert naive > whole  # the negative mover is not in it


def test_only_the_nodes_that_do_something_cost_something(
    lm: LanguageModel, prompts: Promptset, means: TemplateMeans, found: Evidence
) -> None:
    classes = classes_of(found, LEAST)
    nodes = nodes_of(classes)

    def run(circuits: list[Kept]) -> torch.Tensor:
        return knock_out(lm, prompts.clean, primary_readout(prompts), circuits, means)

    contexts = best_contexts(run, nodes, classes, Search(3, 2, 0))
    costs = removal_costs(run, nodes, contexts).mean(dim=0)
    matter = {node[:2] for node, cost in zip(nodes, costs.tolist(), strict=True) if abs(cost) > 1e-2}
    assert matter == {MOVER, NEGATIVE, INHIBITION}
    assert float(incompleteness(run, nodes, [(), nodes]).abs().mean(dim=0).max()) < 1e-2
    assert len(set(greedy_removals(run, nodes, 2))) == 2


def test_a_circuit_that_lacks_the_negative_mover_is_found_incomplete(
    lm: LanguageModel, prompts: Promptset, means: TemplateMeans
) -> None:
    nodes = ((*MOVER, "end"), (*INHIBITION, "end"))

    def run(circuits: list[Kept]) -> torch.Tensor:
        return knock_out(lm, prompts.clean, primary_readout(prompts), circuits, means)

    alone = run([WHOLE.without([(*MOVER, "end")]), EMPTY.without([])]).mean(dim=0)
    missed = incompleteness(run, nodes, [[(*MOVER, "end")]]).mean(dim=0)
    without = run([Kept(((*INHIBITION, "end"),))]).mean(dim=0)
    assert float(missed[0]) == pytest.approx(float(alone[0] - without[0]), rel=1e-5)
    assert float(missed[0]) < -1.0  # what is left of the model speaks against the indirect object


def reference_knock_out(lm: LanguageModel, prompts: Promptset, kept: Kept) -> torch.Tensor:
    """One prompt and one position at a time, means by hand, through plain hooks."""
    corrupt = all_z(lm, abc_of(prompts))
    template = templates_of(prompts, LABELS).tolist()

    def change(layer: int, z: torch.Tensor) -> torch.Tensor:
        new = z.clone()
        for item in range(len(z)):
            same = [other for other in range(len(z)) if template[other] == template[item]]
            for position in range(z.shape[1]):
                for head in range(z.shape[2]):
                    named = any(
                        (layer, head) == node[:2]
                        and (not node[2] or position == int(prompts.clean.labels[node[2]][item]))
                        for node in kept.nodes
                    )
                    if named == kept.is_all_but:
                        new[item, position, head] = torch.stack([corrupt[layer][o, position, head] for o in same]).mean(
                            0
                        )
        return new

    with changed_heads(lm, change):
        logits = stock_logits(lm, prompts.clean)
    return read(primary_readout(prompts), logits, prompts.clean)


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_knock_out_is_what_plain_hooks_give(model_type: str) -> None:
    lm = LanguageModel(tiny(model_type, torch.float64), model_type, None, "cpu")
    made = of_few_tokens(ioi_prompts(8))
    means = template_means(lm, abc_of(made), templates_of(made, LABELS))
    circuits = [WHOLE, EMPTY, Kept(((0, 1, "end"), (2, 3, "s2"), (1, 0, ""))), WHOLE.without([(1, 2, "s1_next")])]
    fast = knock_out(lm, made.clean, primary_readout(made), circuits, means)
    for place, kept in enumerate(circuits):
        torch.testing.assert_close(fast[:, place], reference_knock_out(lm, made, kept), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", ["resample", "zero"])
def test_heads_may_be_knocked_out_to_the_other_prompt_or_to_nothing(kind: str) -> None:
    lm, made = LanguageModel(tiny("gpt2", torch.float64), "gpt2", None, "cpu"), of_few_tokens(ioi_prompts(8))
    means = instead_of_heads(lm, abc_of(made), kind)
    found = knock_out(lm, made.clean, primary_readout(made), [Kept(((1, 0, ""),))], means)
    other = all_z(lm, abc_of(made))

    def change(layer: int, z: torch.Tensor) -> torch.Tensor:
        new = other[layer].clone() if kind == "resample" else torch.zeros_like(z)
        if layer == 1:
            new[:, :, 0] = z[:, :, 0]
        return new

    with changed_heads(lm, change):
        logits = stock_logits(lm, made.clean)
    known = read(primary_readout(made), logits, made.clean)
    torch.testing.assert_close(found[:, 0], known, atol=1e-9, rtol=1e-9)


def of_few_tokens(made: Promptset) -> Promptset:
    """The same with tokens that a tiny model has."""
    assert made.corrupt is not None
    return replace(
        made,
        clean=replace(made.clean, ids=made.clean.ids % 40),
        corrupt=replace(made.corrupt, ids=made.corrupt.ids % 40),
    )


def test_attention_between_labels_is_that_of_the_rows(lm: LanguageModel, prompts: Promptset) -> None:
    found = attention_between(lm, prompts.clean, [("end", "io"), ("s2", "s1")])
    stock = lm.hf.config._attn_implementation
    try:
        lm.hf.set_attn_implementation("eager")
        maps = lm.hf(prompts.clean.ids, output_attentions=True).attentions
    finally:
        lm.hf.set_attn_implementation(stock)
    for item in range(len(prompts)):
        at = {name: int(places[item]) for name, places in prompts.clean.labels.items()}
        for layer, rows in enumerate(maps):
            torch.testing.assert_close(found[item, layer, :, 0], rows[item, :, at["end"], at["io"]], atol=1e-5, rtol=0)
            torch.testing.assert_close(found[item, layer, :, 1], rows[item, :, at["s2"], at["s1"]], atol=1e-5, rtol=0)


def test_random_circuits_keep_the_number_of_heads_of_every_layer_and_position() -> None:
    nodes = ((0, 1, "end"), (0, 2, "s2"), (1, 0, "end"))
    drawn = random_circuits(nodes, 4, 10, seed=0)
    assert len({each.nodes for each in drawn}) == 10
    for each in drawn:
        assert sorted((layer, label) for layer, _, label in each.nodes) == sorted(
            (layer, label) for layer, _, label in nodes
        )
        assert set(each.nodes) != set(nodes)
    assert drawn == random_circuits(nodes, 4, 10, seed=0)
    assert len(random_circuits(((0, 0, "end"),), 3, 10, seed=0)) == 2  # no more exist


def test_sets_of_nodes_are_taken_from_the_circuit_or_added_to_what_is_out() -> None:
    node, other = (0, 1, "end"), (1, 1, "end")
    assert Kept((node, other)).without([other]) == Kept((node,))
    assert WHOLE.without([node]).without([other, node]) == Kept((node, other), is_all_but=True)
    assert all(set(drawn) <= {node, other} for drawn in sampled_removals((node, other), 5, seed=1))


def test_a_circuit_that_is_asked_for_again_is_not_run_again() -> None:
    asked: list[Kept] = []

    def run(circuits: list[Kept]) -> torch.Tensor:
        asked.extend(circuits)
        return torch.tensor([[float(len(each.nodes)) for each in circuits]])

    one, two = (0, 1, "end"), (1, 1, "end")
    ask = remembering(run)
    assert ask([Kept((one, two)), Kept((one,)), Kept((two, one))]).tolist() == [[2.0, 1.0, 2.0]]
    assert ask([Kept((one,)), Kept((one,), is_all_but=True)]).tolist() == [[1.0, 1.0]]
    assert len(asked) == 3


def test_the_probe_measures_one_half_with_classes_of_the_other(lm: LanguageModel, prompts: Promptset) -> None:
    curves = ioi_circuit(lm, prompts, probe_seed=0, least_attention=0.4, n_draws=5, n_sampled=3, n_greedy=2)
    tested = ~curves["whole"].values[:, 0].isnan()
    assert int(tested.sum()) == 8
    assert torch.equal(~curves["minimality"].values[:, 0].isnan(), tested)
    mean = {name: curve.values.nanmean(dim=0) for name, curve in curves.items()}
    assert float(mean["circuit"]) == pytest.approx(float(mean["whole"]), rel=1e-4)
    assert float(mean["circuit_zero"]) > 0.9 * float(mean["whole"])  # the heads that are out write nothing anyway
    assert float(mean["circuit_resample"]) == pytest.approx(float(mean["whole"]), rel=1e-3)
    assert abs(float(mean["empty_zero"])) < 1e-3
    assert float(mean["random_circuits"]) < 0.5 * float(mean["circuit"])
    assert curves["whole"].x.tolist() == [8.0]
    assert torch.equal(curves["role"].values[:, 0].isnan(), tested)  # of the prompts that found the classes
    assert mean["class_size"].tolist()[:4] == [1.0, 1.0, 0.0, 1.0]
    assert mean["mover_tests"].tolist() == [1.0, 1.0, 1.0, 2.0]  # the negative mover looks there too
    named = torch.stack([mean[name] for name in ("role", "layer", "head")], dim=1).tolist()
    assert [1.0, *map(float, MOVER)] in named
    assert [ROLES.index("s_inhibition") + 1.0, *map(float, INHIBITION)] in named


def test_a_model_without_such_heads_has_an_empty_circuit(tmp_path: Path, prompts: Promptset) -> None:
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    made = of_few_tokens(prompts)
    curves = ioi_circuit(lm, made, probe_seed=0, least_effect=0.99, least_attention=0.99, least_accuracy=0.0)
    assert curves["circuit"].x.tolist() == [0.0]
    torch.testing.assert_close(curves["circuit"].values, curves["empty"].values, equal_nan=True)
    assert bool(curves["minimality"].values.isnan().all())
    assert bool(curves["random_circuits"].values.isnan().all())
    assert bool(curves["without_movers"].values.isnan().all())


def test_what_is_no_indirect_object_is_refused(lm: LanguageModel, prompts: Promptset) -> None:
    with pytest.raises(NotApplicable, match="needs the promptset ioi, with its pairs, answers and labels"):
        ioi_circuit(lm, replace(prompts, corrupt=None), probe_seed=0)
    with pytest.raises(NotApplicable, match="set the promptset's corrupt to abc"):
        ioi_circuit(lm, replace(prompts, facts={**prompts.facts, "corrupt": "s2_random"}), probe_seed=0)
    turned = replace(prompts, correct_ids=prompts.wrong_ids, wrong_ids=prompts.correct_ids)
    with pytest.raises(NotApplicable, match=r"prefers the indirect object in 0 of the prompts, fewer than 0\.9"):
        ioi_circuit(lm, turned, probe_seed=0)
    with pytest.raises(BadInput, match=r"ioi_circuit\.n_greedy is 0"):
        ioi_circuit(lm, prompts, probe_seed=0, n_greedy=0)
    with pytest.raises(BadInput, match=r"ioi_circuit\.least_effect is 2"):
        ioi_circuit(lm, prompts, probe_seed=0, least_effect=2)
    with pytest.raises(BadInput, match="kind is 'half': choose one of resample, zero"):
        instead_of_heads(lm, prompts.clean, "half")


def test_templates_of_other_lengths_and_unknown_nodes_are_refused(lm: LanguageModel, prompts: Promptset) -> None:
    shorter = Batch(prompts.clean.ids, prompts.clean.lengths - torch.arange(len(prompts)) % 2)
    with pytest.raises(BadInput, match="prompts of one template differ in length"):
        template_means(lm, shorter, torch.zeros(len(prompts), dtype=torch.int64))
    means = template_means(lm, abc_of(prompts), templates_of(prompts, LABELS))
    readout = primary_readout(prompts)
    with pytest.raises(BadInput, match=r"head \(2, 0\) does not exist"):
        knock_out(lm, prompts.clean, readout, [Kept(((2, 0, "end"),))], means)
    with pytest.raises(BadInput, match="position label 'middle' is unknown"):
        knock_out(lm, prompts.clean, readout, [Kept(((1, 0, "middle"),))], means)


def test_what_is_compared_is_named() -> None:
    classes = {role: [] for role in ROLES} | {"name_mover": [(1, 0)], "negative_mover": [(1, 1)]}
    compared = circuits_compared(classes, NAIVE)
    assert compared["naive"] == Kept(((1, 0, "end"),))
    assert compared["without_movers"] == Kept(((1, 0, "end"),), is_all_but=True)
    assert compared["without_circuit"] == Kept(((1, 0, "end"), (1, 1, "end")), is_all_but=True)
