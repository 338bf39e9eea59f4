import pytest

from mneme.errors import BadInput, NotApplicable
from mneme.promptset import Vocabulary
from mneme.promptsets.user_prompts import user_prompts
from mneme.vocabulary import read_vocabulary
from tests.small_tokenizers import END, save_tokenizer

TEMPLATE = END + "{% for m in messages %}User: {{ m['content'] }}\n{% endfor %}Reply:{{ '\n' }}"


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return read_vocabulary(folder)


@pytest.fixture(scope="module")
def chat_vocabulary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    save_tokenizer(folder, chat_template=TEMPLATE)
    return read_vocabulary(folder)


def pair(**changes):
    row = {"clean": "The dog and the water", "corrupt": "The water and the dog", "correct": "and", "wrong": "the"}
    return row | changes


def word_at(vocabulary, prompts, label, item=0):
    position = int(prompts.clean.labels[label][item])
    return vocabulary.tokenizer.decode([int(prompts.clean.ids[item, position])])


def test_prompts_may_differ_in_length_and_are_padded_on_the_right(vocabulary):
    prompts = user_prompts(vocabulary, seed=0, rows=[{"prompt": "The"}, {"prompt": "The water was"}])
    lengths = prompts.clean.lengths.tolist()
    assert lengths[0] == 2
    assert lengths[1] > 2
    assert prompts.clean.labels["end"].tolist() == [each - 1 for each in lengths]
    assert prompts.texts == ("The", "The water was")
    assert (prompts.clean.ids[:, 0] == vocabulary.first_id).all()


def test_an_answer_is_the_token_with_its_leading_space(vocabulary):
    prompts = user_prompts(vocabulary, seed=0, rows=[pair()])
    assert vocabulary.tokenizer.decode(prompts.correct_ids[0].tolist()) == " and"
    assert vocabulary.tokenizer.decode(prompts.wrong_ids[0].tolist()) == " the"
    assert prompts.facts["chance"] == {"answer_accuracy": 0.5}


def test_several_answers_are_padded_with_minus_one(vocabulary):
    rows = [pair(correct=["and", "was"]), pair(correct="was")]
    prompts = user_prompts(vocabulary, seed=0, rows=rows)
    assert (prompts.correct_ids[0] >= 0).all()
    assert prompts.correct_ids[1, 1] == -1
    assert "chance" not in prompts.facts


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"correct": "and the"}, "correct is not a single token"),
        ({"correct": ""}, "correct is not a word"),
        ({"wrong": "and"}, "correct and wrong are the same token"),
        ({"corrupt": "The water"}, "clean and corrupt differ in their number of tokens"),
        ({"corrupt": "The dog and the water"}, "clean and corrupt are the same"),
        ({"clean": " "}, "clean is not a text"),
        ({"wrong": None}, "no wrong"),
        ({"clean": "the " * 200, "corrupt": "and " * 200}, "longer than the model's context of 128 tokens"),
        ({"clean": "The dog and the water ", "corrupt": "The water and the dog "}, "does the prompt end in a space"),
    ],
)
def test_a_row_that_cannot_be_used_is_dropped_and_its_reason_counted(vocabulary, changes, reason):
    prompts = user_prompts(vocabulary, seed=0, rows=[pair(), pair(**changes), pair(**changes)])
    assert len(prompts) == 1
    ((found, count),) = prompts.dropped.items()
    assert reason in found
    assert count == 2


def test_no_usable_row_is_refused_with_the_reasons(vocabulary):
    with pytest.raises(BadInput, match=r"none of the 2 rows.*2: correct is not a single token"):
        user_prompts(vocabulary, seed=0, rows=[pair(correct="xylophone"), pair(correct="xylophones")])


def test_a_misspelt_column_is_refused_with_the_near_name(vocabulary):
    with pytest.raises(BadInput, match="did you mean 'correct'"):
        user_prompts(vocabulary, seed=0, rows=[pair(corect="and")])
    assert len(user_prompts(vocabulary, seed=0, rows=[pair(_note="mine")])) == 1


@pytest.mark.parametrize("row", [{"correct": "and"}, {"clean": "a"}, {"prompt": "a", "wrong": "b"}])
def test_columns_that_make_no_promptset_are_refused(vocabulary, row):
    with pytest.raises(BadInput, match="user prompts"):
        user_prompts(vocabulary, seed=0, rows=[row])


@pytest.mark.parametrize(
    "name", ["position_", "position_end", "position_a b", "position_a\nb", "position_" + "x" * 9 + "'"]
)
def test_a_position_without_a_name_of_its_own_is_refused_in_one_line(vocabulary, name):
    with pytest.raises(BadInput, match=r"^user prompts have a column 'position_[^\n]*$"):
        user_prompts(vocabulary, seed=0, rows=[{"prompt": "The water", name: 0}])


def test_a_position_may_be_named_by_a_number_or_in_another_script(vocabulary):
    made = user_prompts(vocabulary, seed=0, rows=[{"prompt": "The water", "position_1": 0, "position_zweites-ö": -1}])
    assert set(made.clean.labels) == {"end", "1", "zweites-ö"}


def test_a_column_of_10000_characters_is_refused_in_a_short_line(vocabulary):
    with pytest.raises(BadInput, match=r"unknown column 'x+'") as refusal:
        user_prompts(vocabulary, seed=0, rows=[{"prompt": "The water", "x" * 10_000: "a"}])
    assert len(str(refusal.value)) < 300


def test_positions_are_named_by_word_or_by_index(vocabulary):
    row = {"prompt": "The water and the stone", "position_w": "water", "position_first": 0, "position_last": "-1"}
    prompts = user_prompts(vocabulary, seed=0, rows=[row])
    assert word_at(vocabulary, prompts, "w").strip() in "water"
    assert word_at(vocabulary, prompts, "first") == "The"
    assert prompts.clean.labels["last"].tolist() == prompts.clean.labels["end"].tolist()
    upto = vocabulary.tokenizer("The water", add_special_tokens=False).input_ids
    assert prompts.clean.labels["w"].tolist() == [len(upto)]


@pytest.mark.parametrize("value", ["the", "fire", 99])
def test_a_position_that_is_not_there_once_drops_its_row(vocabulary, value):
    rows = [{"prompt": "and the dog the end", "position_x": each} for each in (value, "dog")]
    prompts = user_prompts(vocabulary, seed=0, rows=rows)
    assert len(prompts) == 1
    assert "position" in next(iter(prompts.dropped))


def test_a_chat_template_wraps_the_prompt_without_a_second_first_token(chat_vocabulary):
    row = {"prompt": "The water", "position_first": 0, "correct": "The"}
    prompts = user_prompts(chat_vocabulary, seed=0, rows=[row], chat_template=True)
    text = chat_vocabulary.tokenizer.decode(prompts.clean.ids[0].tolist())
    assert text == END + "User: The water\nReply:\n"
    assert word_at(chat_vocabulary, prompts, "first").strip() == "The"
    assert chat_vocabulary.tokenizer.decode(prompts.correct_ids[0].tolist()) == "The"


def test_a_tokenizer_without_chat_template_is_not_applicable(vocabulary):
    with pytest.raises(NotApplicable, match="no chat template"):
        user_prompts(vocabulary, seed=0, rows=[{"prompt": "a"}], chat_template=True)


def test_a_vocabulary_without_tokenizer_is_not_applicable():
    with pytest.raises(NotApplicable, match="no tokenizer"):
        user_prompts(Vocabulary(10, 10, "none", None, frozenset()), seed=0, rows=[{"prompt": "a"}])


def test_a_subset_is_drawn_by_the_seed(vocabulary):
    rows = [{"prompt": f"The water {n}", "cluster": n % 3} for n in range(20)]
    first, again, other = (user_prompts(vocabulary, seed=s, rows=rows, n_items=6).texts for s in (0, 0, 1))
    assert first == again
    assert first != other
    assert len(user_prompts(vocabulary, seed=0, rows=rows).clusters.unique()) == 3


def test_conditions_are_numbers_of_a_prompt(vocabulary):
    rows = [{"prompt": "The", "condition_depth": "0.5"}, {"prompt": "The water", "condition_depth": 1}]
    prompts = user_prompts(vocabulary, seed=0, rows=rows)
    assert prompts.conditions["depth"].tolist() == [0.5, 1.0]


@pytest.mark.parametrize("value", ["deep", float("nan"), True])
def test_a_condition_that_is_no_number_drops_its_row(vocabulary, value):
    rows = [{"prompt": "The", "condition_depth": 1}, {"prompt": "The water", "condition_depth": value}]
    prompts = user_prompts(vocabulary, seed=0, rows=rows)
    assert prompts.dropped == {"condition_depth is not a number": 1}


def test_a_condition_without_a_name_of_its_own_is_refused(vocabulary):
    with pytest.raises(BadInput, match="name the condition by letters"):
        user_prompts(vocabulary, seed=0, rows=[{"prompt": "The", "condition_": 1}])
