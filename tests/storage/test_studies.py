"""Studies: YAML to trials, with one clear sentence for everything that is wrong."""

from pathlib import Path

import pytest

from mneme.errors import BadInput
from storage.config_files import read_spec, read_yaml
from storage.model_steps import source_at
from storage.specs import ModelSpec
from storage.studies import Study, load_study


@pytest.fixture(autouse=True)
def tiny(configs: Path) -> None:
    """A study of a trained and a local model."""
    (configs / "models" / "mine-1.5b.yaml").write_text("source: {kind: local, path: ../weights}\n")
    (configs / "studies" / "tiny.yaml").write_text(
        "models: [quick, mine-1.5b]\npromptsets: [repeated_tokens]\nprobes: [induction]\n"
    )


def study(configs: Path, text: str) -> Study:
    (configs / "studies" / "odd.yaml").write_text(text)
    return load_study("odd")


def test_a_grid_is_the_product_of_its_members(configs: Path) -> None:
    trials = load_study("tiny", ["promptset_seeds=[0,1,2]", "model_seeds=[0,1]"]).trials
    assert len(trials) == (2 + 1) * 3
    assert len({trial.trial_id for trial in trials}) == 9


def test_a_model_may_have_other_seeds_than_the_study(configs: Path) -> None:
    (configs / "models" / "other.yaml").write_text("source: {kind: recipe, recipe: induction_lm}\n")
    rest = "model_seeds: [7]\npromptsets: [repeated_tokens]\nprobes: [induction]\n"
    trials = study(configs, "models: [{model: quick, seeds: [0, 1, 2]}, other, mine-1.5b]\n" + rest).trials
    found = [(trial.model, trial.model_seed) for trial in trials]
    assert found == [("quick", 0), ("quick", 1), ("quick", 2), ("other", 7), ("mine-1.5b", None)]
    with pytest.raises(BadInput, match="is not trained here: take its seeds out"):
        study(configs, "models: [{model: mine-1.5b, seeds: [0]}]\n" + rest)
    with pytest.raises(BadInput, match="stands there twice"):
        study(configs, "models: [quick, {model: quick, seeds: [1]}]\n" + rest)


def test_a_baseline_is_a_part_of_what_was_asked_and_the_lack_of_one_is_not(configs: Path) -> None:
    before = load_study("tiny").trials[1]
    assert "baseline" not in before.asked()["model_spec"]
    path = configs / "models" / "mine-1.5b.yaml"
    path.write_text("baseline: untrained\n" + path.read_text())
    now = load_study("tiny").trials[1]
    assert now.asked()["model_spec"]["baseline"] == "untrained"
    assert now.trial_id != before.trial_id


def test_local_weights_have_no_seed_of_ours(configs: Path) -> None:
    local = [trial for trial in load_study("tiny").trials if trial.model == "mine-1.5b"]
    assert [trial.model_seed for trial in local] == [None]


def test_a_path_in_a_spec_starts_at_its_yaml(configs: Path) -> None:
    spec = read_spec("models", "mine-1.5b")
    assert isinstance(spec, ModelSpec)
    assert spec.source.kind == "local"
    assert spec.source.path == str(configs / "weights")


def test_a_description_is_no_part_of_what_was_asked(configs: Path) -> None:
    before = load_study("tiny").trials[1].trial_id
    path = configs / "models" / "mine-1.5b.yaml"
    path.write_text("description: better words\n" + path.read_text())
    assert load_study("tiny").trials[1].trial_id == before


def test_a_parameter_is_a_part_of_what_was_asked(configs: Path) -> None:
    before = load_study("tiny").trials[0].trial_id
    changed = load_study("tiny", ["promptsets.repeated_tokens.parameters.n_items=9"]).trials[0]
    assert changed.promptset_spec.parameters["n_items"] == 9
    assert changed.trial_id != before


def test_a_member_whose_name_has_a_dot_can_be_set(configs: Path) -> None:
    trials = load_study("tiny", ["models.mine-1.5b.dtype=float64"]).trials
    assert {trial.model_spec.dtype for trial in trials if trial.model == "mine-1.5b"} == {"float64"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["nonsense"], "is not key=value"),
        (["probe_sede=1"], "unknown key 'probe_sede'; did you mean 'probe_seed'"),
        (["models=[quik]"], "unknown model 'quik'; did you mean 'quick'"),
        (["promptsets=[repeated_token]"], "did you mean 'repeated_tokens'"),
        (["probes=[inducton]"], "unknown probe 'inducton'; did you mean 'induction'"),
        (["probes=[{probe: induction, variant: nope}]"], "probe induction has no variant 'nope'"),
        (["models=[]"], "'models'"),
        (["models=[quick,quick]"], "stands there twice"),
        (["promptset_seeds=[-1]"], "promptset_seeds"),
        (["promptsets.repeated_tokens.parameters.n_itmes=9"], "takes no parameter 'n_itmes'; did you mean 'n_items'"),
        (["promptsets.repeated_tokens.generatr=x"], "unknown key 'generatr'; did you mean 'generator'"),
        (["probes.copy_loss.parameters.x=1"], "the study uses no probe 'copy_loss'"),
        (["models.quick=3"], "must read models|promptsets|probes.<name>.<key>"),
        (["device=tpu"], "'device'"),
        (["trace_limit_mib=[1"], "is not valid YAML"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(configs: Path, settings: list[str], sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_study("tiny", settings)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tinny", "../../etc/passwd", "a/b", "", "x" * 10_000, "tiny\n", "'; drop"])
def test_an_unknown_study_is_refused_in_one_short_sentence(configs: Path, name: str) -> None:
    with pytest.raises(BadInput, match="unknown study") as caught:
        load_study(name)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("models: [quick]\nmodels: [quick]\n", "stands there twice"),
        ("- a\n- b\n", "must hold a mapping"),
        ("models: [quick\n", "is not valid YAML"),
        ("models: !!python/object/apply:os.system [id]\n", "is not valid YAML"),
        ("1: 2\n", "is not a text"),
        ("models: [quick]\npromptsets: [repeated_tokens]\n", "the key 'probes' is missing"),
    ],
)
def test_a_broken_yaml_is_refused_in_one_sentence(configs: Path, text: str, sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        study(configs, text)
    assert sentence in str(caught.value)


def test_the_shipped_studies_load() -> None:
    for path in sorted((Path(__file__).parents[2] / "configs" / "studies").glob("*.yaml")):
        assert read_yaml(path)["description"]
        assert load_study(path.stem).trials


STEPS = "promptsets: [repeated_tokens]\nprobes: [induction, copy_loss]\n"


def test_steps_stand_in_the_place_of_the_finished_model(configs: Path) -> None:
    keeping = "overrides: {models.quick.source.parameters.keep: [0, 64, 128]}\n"
    trials = study(configs, "models: [quick]\nmodel_seeds: [0, 1]\nsteps: [0, 128]\n" + STEPS + keeping).trials
    assert [(trial.model_seed, trial.step) for trial in trials] == [
        (seed, step) for seed in (0, 1) for step in (0, 128) for _ in range(2)
    ]
    assert trials[2].pairing_label == "quick[0]@128 / repeated_tokens[0]"
    assert trials[2].finished_model_label == "quick[0]"


def test_a_step_is_a_part_of_what_was_asked_and_the_lack_of_one_is_not(configs: Path) -> None:
    (configs / "models" / "public.yaml").write_text("source: {kind: hub, id: some/model}\n")
    before = study(configs, "models: [public]\n" + STEPS).trials
    (configs / "models" / "public.yaml").write_text(
        'step_revision: "step{step}"\nsource: {kind: hub, id: some/model}\n'
    )
    after = study(configs, "models: [public]\n" + STEPS).trials
    steps = study(configs, "models: [public]\nsteps: [0, 3000]\n" + STEPS).trials
    assert [trial.trial_id for trial in before] == [trial.trial_id for trial in after]
    assert "step" not in after[0].asked()
    assert len({trial.trial_id for trial in (*after, *steps)}) == 6
    assert source_at(steps[-1].model_spec, steps[-1].step).revision == "step3000"
    assert source_at(after[0].model_spec, None).revision == "main"


@pytest.mark.parametrize(
    ("model", "keep", "sentence"),
    [
        ("quick", "[0, 64]", r"model quick does not keep step 128 of its training \(kept: 0, 64\): set `keep`"),
        ("quick", "[]", r"kept: none"),
        ("quick", "log_spaced", r"does not keep step 3 .*kept: 0, 1, 2, 4, .*1024, 1500"),
        ("quick", "often", "give a list of steps, or log_spaced"),
        ("mine-1.5b", None, "is a folder and has no steps"),
        ("smollm2-135m", None, r"set step_revision in its YAML, such as 'step\{step\}'"),
    ],
)
def test_a_step_that_is_not_there_is_refused_before_anything_runs(
    configs: Path, model: str, keep: str | None, sentence: str
) -> None:
    override = "" if keep is None else f"overrides: {{models.quick.source.parameters.keep: {keep}}}\n"
    with pytest.raises(BadInput, match=sentence):
        study(configs, f"models: [{model}]\nsteps: [0, 128, 3]\n" + STEPS + override)


RANKED = """
models: [quick]
promptsets: [repeated_tokens]
probes: [{probe: head_ablation, variant: elsewhere}]
"""


def ranked(configs: Path, parameters: str, study_text: str = RANKED) -> Study:
    text = f"parameters: {{ks: [1]}}\nvariants:\n  elsewhere: {parameters}\n"
    (configs / "probes" / "head_ablation.yaml").write_text(text)
    return study(configs, study_text)


def test_the_promptset_that_ranks_heads_is_a_part_of_what_was_asked_and_the_lack_of_one_is_not(configs: Path) -> None:
    (alone,) = ranked(configs, "{rank_by: previous_token}").trials
    assert alone.ranked_on is None
    assert "ranked_on" not in alone.asked()
    (trial,) = ranked(configs, "{rank_by: 'induction[without_first]', rank_on: shuffled_tokens}").trials
    assert trial.ranked_on == read_spec("promptsets", "shuffled_tokens")
    assert "description" not in trial.asked()["ranked_on"]
    changed = "overrides: {promptsets.shuffled_tokens.parameters.n_items: 3}\n"
    (smaller,) = ranked(configs, "{rank_on: shuffled_tokens}", RANKED + changed).trials
    assert smaller.ranked_on is not None
    assert smaller.ranked_on.parameters["n_items"] == 3
    assert len({alone.trial_id, trial.trial_id, smaller.trial_id}) == 3


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ("{rank_on: shuffled_token}", "unknown promptset 'shuffled_token'; did you mean 'shuffled_tokens'"),
        ("{rank_on: [shuffled_tokens]}", "head_ablation.rank_on is .*: name a promptset, or leave it out"),
        ("{rank_by: inductoin}", "unknown probe 'inductoin'; did you mean 'induction'"),
        ("{rank_by: 'induction[first]'}", "probe induction has no variant 'first'"),
        ("{rank_by: 'induction[with'}", "name a probe, or one of its variants as"),
        ("{rank_by: 3}", "head_ablation.rank_by is 3: name a probe"),
        ("{rank_by: ../induction}", "name a probe"),
        ("{rank_by: copy_loss}", "copy_loss cannot rank heads, it is of level behavior: name one of level head"),
    ],
)
def test_a_ranking_that_cannot_be_is_refused_in_one_sentence(configs: Path, parameters: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as refusal:
        ranked(configs, parameters)
    assert "\n" not in str(refusal.value)


def test_what_ranks_heads_may_be_changed_only_where_a_probe_names_it(configs: Path) -> None:
    changed = "overrides: {promptsets.shuffled_tokens.parameters.n_items: 3}\n"
    with pytest.raises(BadInput, match="the study uses no promptset 'shuffled_tokens'"):
        ranked(configs, "{rank_by: induction}", RANKED + changed)
