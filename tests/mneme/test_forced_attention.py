"""Forced attention: what a head writes when it is made to look somewhere, and the repair that follows from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.forced_attention import attention_when_forced, even_rows, force_attention
from mneme.head_order import Ranking
from mneme.model import LanguageModel, load_model
from mneme.named_attention import attention_between
from mneme.probes.colored_objects_repair import colored_objects_repair
from mneme.probes.repair_curve import repair_curve
from mneme.promptset import Promptset
from mneme.readouts import Readout
from tests.architectures import VOCABULARY, tiny
from tests.color_prompts import color_prompts
from tests.ioi_prompts import ioi_prompts
from tests.planted import BLOCK, OUT, PREVIOUS, colors_model, inhibited_model, save
from tests.references import changed_heads, read, stock_logits

MOVER, INHIBITION = (0, 0), (0, 1)
FAMILIES = ("gpt2", "llama", "gpt_neox", "gemma2")
WIDTHS = Readout("widths", "", lambda logits, _, __: logits[:, 3] - logits[:, 7])


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(save(colors_model(), tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def prompts() -> Promptset:
    return color_prompts()


def ranking_of(lm: LanguageModel, prompts: Promptset, *best: tuple[int, int]) -> Ranking:
    scores = torch.zeros(len(prompts), lm.n_layers, lm.n_heads)
    for place, head in enumerate(best):
        scores[:, head[0], head[1]] = 10.0 - place
    return Ranking(scores, is_elsewhere=True)


def repaired(lm: LanguageModel, prompts: Promptset, **parameters: object) -> dict[str, torch.Tensor]:
    return colored_objects_repair(lm, prompts, ranking_of(lm, prompts, INHIBITION), probe_seed=0, **parameters)  # type: ignore[arg-type]


def test_a_third_is_right_all_after_the_repair_and_none_when_the_right_color_is_looked_at(
    lm: LanguageModel, prompts: Promptset
) -> None:
    found = repaired(lm, prompts, ks=[1])
    assert float(found["clean"].mean()) == pytest.approx(1 / 3)
    assert float((found["clean"][:, None] + found["set_effects"]).mean()) == 1.0
    hurt = repaired(lm, prompts, ks=[1], target="correct")
    assert float((hurt["clean"][:, None] + hurt["set_effects"]).mean()) == 0.0


def test_only_the_head_that_lowers_colors_repairs(lm: LanguageModel, prompts: Promptset) -> None:
    found = repaired(lm, prompts, ks=[1], n_draws=20)
    effects = found["effects"].mean(dim=0)
    assert float(effects[INHIBITION]) == pytest.approx(2 / 3)
    assert float(effects[MOVER]) == pytest.approx(-1 / 3)  # it copies what it is made to look at
    assert torch.equal(effects[1], torch.zeros(4))
    assert found["top_heads"].tolist() == [list(INHIBITION)]
    assert int(found["n_distinct"][0]) == int(found["n_draws"][0]) == 3  # three other heads in the layer
    assert sorted(found["control_effects"].mean(dim=0)[0].tolist()) == pytest.approx([-1 / 3, 0.0, 0.0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forced_head_writes_the_weighed_mean_of_its_values(family: str) -> None:
    lm = LanguageModel(tiny(family, torch.float64), family, None, "cpu")
    ids = torch.randint(3, VOCABULARY, (4, 9), generator=torch.Generator().manual_seed(0))
    places = torch.tensor([8, 6, 7, 8])
    batch = Batch(ids, places + 1, {"query": places, "near": places - 1, "far": places - 3})
    rows = even_rows(batch, ["near", "far"])
    sets = [[(1, 2)], [(0, 1), (2, 3)], []]
    found = force_attention(lm, batch, WIDTHS, sets, rows, "query")
    for place, heads in enumerate(sets):
        torch.testing.assert_close(found[:, place], reference(lm, batch, heads), atol=1e-9, rtol=1e-9)


def reference(lm: LanguageModel, batch: Batch, heads: list[tuple[int, int]]) -> torch.Tensor:
    """Values by the layer's own projection of what enters it, weighed by hand, one full run with plain hooks."""
    values: dict[int, torch.Tensor] = {}
    for layer, module in enumerate(lm.attention_modules):

        def keep(
            module: torch.nn.Module, args: tuple[torch.Tensor], kwargs: dict[str, Any], layer: int = layer
        ) -> None:
            values[layer] = projected(module, kwargs["hidden_states"] if "hidden_states" in kwargs else args[0], lm)

        module.register_forward_pre_hook(keep, with_kwargs=True)

    def change(layer: int, z: torch.Tensor) -> torch.Tensor:
        for at, head in heads:
            if at == layer:
                for item in range(len(z)):
                    query, near, far = (int(batch.labels[name][item]) for name in ("query", "near", "far"))
                    z[item, query, head] = (values[layer][item, head, near] + values[layer][item, head, far]) / 2
        return z

    with changed_heads(lm, change):
        return read(WIDTHS, stock_logits(lm, batch), batch)


def projected(module: torch.nn.Module, states: torch.Tensor, lm: LanguageModel) -> torch.Tensor:
    """Values of each query head, by the names of the module's projections."""
    n_items, n_positions = states.shape[:2]
    if hasattr(module, "v_proj"):
        values = module.v_proj(states).view(n_items, n_positions, lm.n_kv_heads, -1)
    elif hasattr(module, "c_attn"):
        values = module.c_attn(states).chunk(3, dim=-1)[2].view(n_items, n_positions, lm.n_heads, -1)
    else:  # interleaved by head
        values = module.query_key_value(states).view(n_items, n_positions, lm.n_heads, 3, -1)[..., 2, :]
    return values.transpose(1, 2).repeat_interleave(lm.n_heads // values.shape[2], dim=1)


def test_a_head_that_looks_there_already_changes_nothing(lm: LanguageModel, prompts: Promptset) -> None:
    rows = even_rows(prompts.clean, ["correct_color", "wrong_color_0", "wrong_color_1"])
    readout = Readout("first", "", lambda logits, _, __: logits[:, 10])
    found = force_attention(lm, prompts.clean, readout, [[MOVER], [], [INHIBITION]], rows, "end")
    torch.testing.assert_close(found[:, 0], found[:, 1], atol=1e-3, rtol=1e-5)
    assert bool((found[:, 2] < found[:, 1]).all())


def test_even_rows_add_up_to_one(prompts: Promptset) -> None:
    rows = even_rows(prompts.clean, ["wrong_color_0", "wrong_color_1"])
    assert torch.equal(rows.sum(dim=1), torch.ones(18, dtype=torch.float64))
    assert rows[0].tolist() == [0.0, 0.0, 0.5, 0.5, 0.0]


def test_rows_that_are_no_attention_are_refused(lm: LanguageModel, prompts: Promptset) -> None:
    batch, good = prompts.clean, even_rows(prompts.clean, ["correct_color"])

    def forced(rows: torch.Tensor, query: str | int = "end") -> None:
        force_attention(lm, batch, WIDTHS, [[MOVER]], rows, query)

    for rows, message in (
        (good[:, :4], r"rows of attention must be \[item key\] \(18, 5\), not \(18, 4\)"),
        (good * 0.5, "shares from 0 on that add up to 1"),
        (good * 2 - good.flip(1), "shares from 0 on that add up to 1"),
        (good * torch.nan, "shares from 0 on that add up to 1"),
    ):
        with pytest.raises(BadInput, match=message):
            forced(rows)
    with pytest.raises(BadInput, match="a row of attention names a token after its query"):
        forced(good, 0)
    with pytest.raises(BadInput, match="position label 'start' is unknown"):
        forced(good, "start")
    with pytest.raises(BadInput, match="no label is given to attend to"):
        even_rows(batch, [])


def test_a_key_out_of_the_window_of_the_layer_is_refused() -> None:
    lm = LanguageModel(tiny("mistral"), "mistral", None, "cpu")
    batch = Batch.of(torch.randint(3, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0)))
    rows = torch.zeros(2, 12)
    rows[:, 2] = 1.0
    with pytest.raises(BadInput, match="out of the window of layer 1, 6 tokens"):
        force_attention(lm, batch, WIDTHS, [[(1, 0)]], rows, 11)


def test_what_there_is_nothing_to_repair_in_is_refused_with_its_accuracy(lm: LanguageModel, prompts: Promptset) -> None:
    easy = prompts.select(torch.nonzero(prompts.correct_ids[:, 0] == 10)[:, 0])  # type: ignore[index]
    hard = prompts.select(torch.nonzero(prompts.correct_ids[:, 0] == 12)[:, 0])  # type: ignore[index]
    with pytest.raises(NotApplicable, match=r"answers 1\.000 of 6 prompts right.*there is nothing to repair"):
        repaired(lm, easy)
    with pytest.raises(NotApplicable, match=r"answers 0\.000 of 6 prompts right.*does not do the task"):
        repaired(lm, hard)


def test_other_promptsets_and_bad_parameters_are_refused(lm: LanguageModel, prompts: Promptset) -> None:
    with pytest.raises(NotApplicable, match="needs the promptset colored_objects"):
        repaired(lm, ioi_prompts(4))
    with pytest.raises(BadInput, match="target is 'left': choose one of wrong, correct"):
        repaired(lm, prompts, target="left")
    with pytest.raises(BadInput, match="n_draws is 0"):
        repaired(lm, prompts, n_draws=0)
    with pytest.raises(BadInput, match="most_accuracy"):
        repaired(lm, prompts, least_accuracy=0.5, most_accuracy=0.4)
    with pytest.raises(NotApplicable, match="1 heads of the ranking have a score above 0, fewer than any of ks"):
        repaired(lm, prompts, ks=[2])


def test_more_heads_than_lead_anywhere_are_not_forced(lm: LanguageModel, prompts: Promptset) -> None:
    found = repaired(lm, prompts, ks=[1, 2, 4])
    assert found["k"].tolist() == [1]
    made = half_right()
    curves = repair_curve(lm, made, ranking_of(lm, made, INHIBITION), probe_seed=0, ks=[1, 2], share=0.125)
    assert curves["accuracy"].x.tolist() == curves["to_wrong"].x.tolist() == [0.0, 1.0]
    assert curves["random_accuracy"].x.tolist() == [1.0]


@pytest.mark.parametrize("family", FAMILIES)
def test_later_heads_look_as_in_a_run_in_which_the_forced_heads_wrote_that(family: str) -> None:
    lm = LanguageModel(tiny(family, torch.float64), family, None, "cpu")
    ids = torch.randint(3, VOCABULARY, (4, 9), generator=torch.Generator().manual_seed(0))
    places = torch.tensor([8, 6, 7, 8])
    batch = Batch(ids, places + 1, {"query": places, "near": places - 1, "far": places - 3})
    rows = even_rows(batch, ["near", "far"])
    pairs, heads = [("query", "near"), ("query", "far")], [(0, 1), (1, 2)]
    found = attention_when_forced(lm, batch, pairs, heads, rows, "query")
    free = attention_between(lm, batch, pairs)
    torch.testing.assert_close(found[:, 0], free[:, 0])
    for item in range(4):
        place, alone = int(places[item]), batch.select(torch.tensor([item]))
        maps = rows_when_forced(lm, alone, heads)
        for layer, attention in enumerate(maps):
            known = torch.stack([attention[0, :, place, place - 1], attention[0, :, place, place - 3]], dim=1)
            torch.testing.assert_close(found[item, layer], known.to(found), atol=1e-6, rtol=0)  # float32 softmax


def rows_when_forced(lm: LanguageModel, batch: Batch, heads: list[tuple[int, int]]) -> list[torch.Tensor]:
    """Attention maps of one prompt with heads forced by hand, through plain hooks and the stock eager attention."""
    stock = lm.hf.config._attn_implementation
    values: dict[int, torch.Tensor] = {}
    hooks = []
    for layer, module in enumerate(lm.attention_modules):

        def keep(
            module: torch.nn.Module, args: tuple[torch.Tensor], kwargs: dict[str, Any], layer: int = layer
        ) -> None:
            values[layer] = projected(module, kwargs["hidden_states"] if "hidden_states" in kwargs else args[0], lm)

        hooks.append(module.register_forward_pre_hook(keep, with_kwargs=True))

    def change(layer: int, z: torch.Tensor) -> torch.Tensor:
        query, near, far = (int(batch.labels[name][0]) for name in ("query", "near", "far"))
        for at, head in heads:
            if at == layer:
                z[0, query, head] = (values[layer][0, head, near] + values[layer][0, head, far]) / 2
        return z

    try:
        lm.hf.set_attn_implementation("eager")
        with changed_heads(lm, change):
            return list(lm.hf(batch.ids[:, : int(batch.lengths[0])], output_attentions=True).attentions)
    finally:
        lm.hf.set_attn_implementation(stock)
        for hook in hooks:
            hook.remove()


def test_the_curve_says_how_much_is_right_before_and_after(lm: LanguageModel) -> None:
    def found(target: str) -> dict[str, list[float]]:
        made = half_right()
        ranking = ranking_of(lm, made, INHIBITION)
        curves = repair_curve(lm, made, ranking, probe_seed=0, ks=[1], share=0.125, target=target)
        assert curves["accuracy"].x.tolist() == [0.0, 1.0]
        assert int(curves["to_wrong"].values[:, 0].isnan().sum()) == 6  # the half that chose the heads that answer
        return {name: curve.values.nanmean(dim=0).tolist() for name, curve in curves.items()}

    repaired, hurt = found("wrong"), found("correct")
    assert repaired["accuracy"] == repaired["accuracy_of_vocabulary"] == [0.5, 1.0]
    assert hurt["accuracy"] == [0.5, 0.0]
    assert repaired["random_accuracy"] == pytest.approx([(0 + 1 / 2 + 1 / 2) / 3])  # the mover, and two that are idle
    assert repaired["to_wrong"] == pytest.approx([2 / 3, 2 / 3], abs=1e-4)  # heads of one layer do not see each other
    assert repaired["to_correct"] == pytest.approx([1 / 3, 1 / 3], abs=1e-4)


def half_right() -> Promptset:
    """The prompts that ask for color 10, which is always said, or for 11."""
    made = color_prompts()
    assert made.correct_ids is not None
    return paired(made.select(torch.nonzero(made.correct_ids[:, 0] < 12)[:, 0]))


def paired(prompts: Promptset) -> Promptset:
    """With counterparts whose colors are other tokens, so that what the heads write for a color matters."""
    return replace(prompts, corrupt=Batch.of(torch.where(is_color(prompts.clean.ids), 50, prompts.clean.ids)))


def is_color(ids: torch.Tensor) -> torch.Tensor:
    return (ids >= 10) & (ids <= 12)


def test_the_heads_that_answer_turn_where_an_inhibition_head_of_an_earlier_layer_sends_them(tmp_path: Path) -> None:
    """METHODS 5c: the mover's attention to wrong colors falls, and rises to the right one, when it is told so."""
    lm, made = load_model(save(inhibited_model(), tmp_path)), half_right()
    curves = repair_curve(lm, made, ranking_of(lm, made, (0, 1)), probe_seed=0, ks=[1], share=0.125)
    mean = {name: curve.values.nanmean(dim=0).tolist() for name, curve in curves.items()}
    assert mean["to_wrong"] == pytest.approx([2 / 3, 0.0], abs=1e-3)
    assert mean["to_correct"] == pytest.approx([1 / 3, 1.0], abs=1e-3)
    assert mean["random_to_wrong"] == pytest.approx([2 / 3], abs=1e-3)
    assert mean["accuracy"] == [0.5, 1.0]


def test_a_head_that_lowers_the_answer_more_than_any_raises_it_is_no_answering_head(tmp_path: Path) -> None:
    model = inhibited_model()
    with torch.no_grad():  # L1H0 says the answer, L0H1 lowers what it looks at in the output, too, by more
        weight = model.transformer.h[0].attn.c_proj.weight
        weight[BLOCK : 2 * BLOCK, OUT] = -3.0 * weight[BLOCK : 2 * BLOCK, PREVIOUS]
    lm, made = load_model(save(model, tmp_path)), half_right()
    assert made.correct_ids is not None
    ids = made.clean.ids
    made = replace(made, corrupt=Batch.of(torch.where(ids == made.correct_ids, 50, ids)))
    curves = repair_curve(lm, made, ranking_of(lm, made, (0, 1)), probe_seed=0, ks=[1], share=0.125, least_accuracy=0.0)
    looked = curves["to_wrong"].values.nanmean(dim=0).tolist()
    assert looked == pytest.approx([2 / 3, 0.0], abs=1e-3)  # the mover's, which L0H1's own row is not


def test_a_curve_of_nothing_to_repair_or_of_other_prompts_is_refused(lm: LanguageModel, prompts: Promptset) -> None:
    def ask(some: Promptset, **parameters: Any) -> None:
        repair_curve(lm, some, ranking_of(lm, some, INHIBITION), probe_seed=0, ks=[1], **parameters)

    with pytest.raises(NotApplicable, match="repair_curve needs the promptset colored_objects"):
        ask(ioi_prompts(4))
    with pytest.raises(NotApplicable, match="repair_curve needs clean and corrupt prompts"):
        ask(replace(prompts, corrupt=None))
    with pytest.raises(NotApplicable, match=r"no head of .* helps the answer, so none can be watched"):
        ask(replace(prompts, corrupt=Batch.of(prompts.clean.ids)))
    with pytest.raises(NotApplicable, match=r"repair_curve: .* answers 0\.333 .*outside of 0\.5 \.\. 0\.9"):
        ask(paired(prompts), least_accuracy=0.5)
    with pytest.raises(BadInput, match=r"repair_curve\.share is 2"):
        ask(paired(prompts), share=2)


def test_heads_ranked_on_the_same_prompts_are_tested_on_the_others(lm: LanguageModel, prompts: Promptset) -> None:
    ranking = replace(ranking_of(lm, prompts, INHIBITION), is_elsewhere=False)
    found = colored_objects_repair(lm, prompts, ranking, probe_seed=0, ks=[1])
    assert int(found["set_effects"].isnan().sum()) == 9
    assert not bool(found["effects"].isnan().any())
