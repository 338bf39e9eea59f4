"""Forced attention: what a head writes when it is made to look somewhere, and the repair that follows from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.forced_attention import even_rows, force_attention
from mneme.head_order import Ranking
from mneme.model import LanguageModel, load_model
from mneme.probes.colored_objects_repair import colored_objects_repair
from mneme.promptset import Promptset
from mneme.readouts import Readout
from tests.architectures import VOCABULARY, tiny
from tests.color_prompts import color_prompts
from tests.ioi_prompts import ioi_prompts
from tests.planted import colors_model, save
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
    with pytest.raises(NotApplicable, match="1 heads of the ranking have a score above 0, fewer than the 2 of ks"):
        repaired(lm, prompts, ks=[1, 2])


def test_heads_ranked_on_the_same_prompts_are_tested_on_the_others(lm: LanguageModel, prompts: Promptset) -> None:
    ranking = replace(ranking_of(lm, prompts, INHIBITION), is_elsewhere=False)
    found = colored_objects_repair(lm, prompts, ranking, probe_seed=0, ks=[1])
    assert int(found["set_effects"].isnan().sum()) == 9
    assert not bool(found["effects"].isnan().any())
