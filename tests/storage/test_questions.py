"""Five questions of a researcher, as `mneme sql` is asked them once the study `findings` has run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from storage.home import Home
from storage.lake import Lake
from storage.reader import query
from storage.warehouse import publish
from tests.storage.rows import curve_row, deliver_answer, deliver_head_scores, deliver_trial

HOW_MANY_RETRIEVAL_HEADS_HAS_EACH_SEED = """
select model, model_seed, n_heads, n_measured
from mart.role_counts where role = 'retrieval' and promptset = 'needle' order by model, model_seed
"""
DOES_MASKING_THEM_HURT_STORED_FACTS = """
select model, model_seed, promptset, value as lost, ci_low, ci_high,
control_mean as lost_with_random_heads, p_value, n_items
from mart.controls where probe = 'head_ablation_accuracy' and variant = 'retrieval_claim' and k = 4
and promptset in ('needle', 'stored_facts') order by model, model_seed, promptset
"""
WHICH_LAYER_KNOWS_THE_ANSWER_FIRST = """
select model, model_seed, min(x) filter (where promptset = 'needle') as needle,
min(x) filter (where promptset = 'stored_facts') as stored_facts
from mart.curves where probe = 'logit_lens' and variant = 'primary' and measure = 'answer_probability' and value > 0.5
group by model, model_seed order by model, model_seed
"""
CAN_ONE_HEAD_MAKE_THE_CONTEXT_WIN = """
select model, model_seed, max(value) filter (where measure = 'context_rate' and x = 1) as as_it_is,
max(value) filter (where measure = 'context_rate' and x = 5) as head_times_five,
max(value) filter (where measure = 'control_context_rate' and x = 5) as another_head_times_five
from mart.curves where probe = 'value_scaling' and variant = 'primary' and promptset = 'fact_conflict'
group by model, model_seed order by model, model_seed
"""
HOW_LONG_IS_A_LIST_REMEMBERED = """
select model, round(avg(value) filter (where x = 26), 1) as after_26_tokens,
round(avg(value) filter (where x = 99), 1) as after_99, round(avg(value) filter (where x = 194), 1) as after_194
from mart.curves where probe = 'repeat_surprisal' and measure = 'repeat_surprisal' and x_name = 'n_between'
and promptset = 'noun_list_grid' group by model order by model
"""
QUESTIONS = {
    HOW_MANY_RETRIEVAL_HEADS_HAS_EACH_SEED: "model,model_seed,n_heads,n_measured",
    DOES_MASKING_THEM_HURT_STORED_FACTS: (
        "model,model_seed,promptset,lost,ci_low,ci_high,lost_with_random_heads,p_value,n_items"
    ),
    WHICH_LAYER_KNOWS_THE_ANSWER_FIRST: "model,model_seed,needle,stored_facts",
    CAN_ONE_HEAD_MAKE_THE_CONTEXT_WIN: "model,model_seed,as_it_is,head_times_five,another_head_times_five",
    HOW_LONG_IS_A_LIST_REMEMBERED: "model,after_26_tokens,after_99,after_194",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One model with a few numbers for each question, and what must not be mixed up with them."""
    home = Home(tmp_path_factory.mktemp("home"))
    lake = Lake(home.lake)
    _deliver(lake, "retrieval_score", "needle")
    deliver_head_scores(lake, "d-retrieval_score-needle-primary", {(0, 0): 0.9, (0, 1): 0.1, (1, 0): 0.05})
    for promptset, lost in (("needle", 0.8), ("stored_facts", 0.1)):
        delivery = _deliver(lake, "head_ablation_accuracy", promptset, "retrieval_claim", level="intervention")
        lake.deliver("controls", delivery, pl.DataFrame([_controls(delivery, 4, lost), _controls(delivery, 8, 0.9)]))
    for promptset, values in (("needle", (0.0, 0.1, 0.9)), ("stored_facts", (0.0, 0.6, 0.8))):
        for variant in ("primary", "shuffled"):
            shown = values if variant == "primary" else (1.0, 1.0, 1.0)
            points = [("answer_probability", "layer", float(x), value) for x, value in enumerate(shown)]
            _deliver_curves(lake, _deliver(lake, "logit_lens", promptset, variant, level="curve"), points)
    scaled = [("context_rate", 1.0, 0.2), ("context_rate", 5.0, 0.7), ("control_context_rate", 5.0, 0.3)]
    points = [(measure, "alpha", x, value) for measure, x, value in scaled]
    _deliver_curves(lake, _deliver(lake, "value_scaling", "fact_conflict", level="curve"), points)
    between = [("repeat_surprisal", "n_between", x, value) for x, value in ((26.0, 1.23), (99.0, 45.6), (194.0, 80.0))]
    _deliver_curves(lake, _deliver(lake, "repeat_surprisal", "noun_list_grid", level="behavior"), between)
    assert publish(home).promises_broken == ()
    return home


def _deliver(lake: Lake, probe: str, promptset: str, variant: str = "primary", level: str = "head") -> str:
    name = f"{probe}-{promptset}-{variant}"
    about: dict[str, Any] = {"probe": probe, "promptset": promptset, "variant": variant, "level": level}
    deliver_trial(lake, f"d-{name}", trial_id=f"t-{name}", model="micro", low=None, high=None, **about)
    deliver_answer(lake, "findings", f"t-{name}", f"d-{name}")
    return f"d-{name}"


def _controls(delivery: str, k: int, lost: float) -> dict[str, Any]:
    row = {"delivery_id": delivery, "k": k, "value": lost, "ci_low": 0.05, "ci_high": 0.95}
    row |= {"control_mean": 0.05, "control_low": 0.0, "control_high": 0.1, "n_draws": 100, "n_distinct": 100}
    return row | {"p_value": 0.01, "n_items": 100, "n_clusters": 10}


def _deliver_curves(lake: Lake, delivery: str, points: list[tuple[str, str, float, float]]) -> None:
    ends = {"ci_low": None, "ci_high": None, "n_items": 40, "n_clusters": None}
    rows = [
        {"delivery_id": delivery} | curve_row(measure, x_name, x, value=value) | ends
        for measure, x_name, x, value in points
    ]
    lake.deliver("curves", delivery, pl.DataFrame(rows, infer_schema_length=None))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (HOW_MANY_RETRIEVAL_HEADS_HAS_EACH_SEED, ["micro,0,2,3"]),
        (
            DOES_MASKING_THEM_HURT_STORED_FACTS,
            ["micro,0,needle,0.8,0.05,0.95,0.05,0.01,100", "micro,0,stored_facts,0.1,0.05,0.95,0.05,0.01,100"],
        ),
        (WHICH_LAYER_KNOWS_THE_ANSWER_FIRST, ["micro,0,2.0,1.0"]),
        (CAN_ONE_HEAD_MAKE_THE_CONTEXT_WIN, ["micro,0,0.2,0.7,0.3"]),
        (HOW_LONG_IS_A_LIST_REMEMBERED, ["micro,1.2,45.6,80.0"]),
    ],
)
def test_each_question_finds_its_numbers_and_no_other(home: Home, question: str, answer: list[str]) -> None:
    header, *found = query(home, question, "csv").splitlines()
    assert header == QUESTIONS[question]
    assert found == answer


def test_a_home_without_results_answers_each_question_with_no_row(tmp_path: Path) -> None:
    home = Home(tmp_path)
    publish(home)
    for question, header in QUESTIONS.items():
        assert query(home, question, "csv").splitlines() == [header]
