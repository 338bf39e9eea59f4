"""Groups of prompts are complete or not there at all."""

import pytest

from mneme.errors import BadInput
from mneme.scene_groups import promptset_of_groups
from mneme.scene_prompts import SceneReader
from mneme.stories import Question, Scene, Told, told
from tests.scene_vocabularies import word_vocabulary

VOCABULARY = word_vocabulary("key_value_recall")
READER = SceneReader(VOCABULARY, "test")


def scene(context, answer="alpha"):
    return Scene(Told(context), (Question(told("Again: {question_key}", question_key="river"), answer, ("beta",)),))


def test_a_group_with_one_prompt_that_cannot_be_used_is_left_out_whole():
    drawn = [
        [scene("stone alpha."), scene("cloud alpha.")],
        [scene("wind alpha."), scene("rain alpha.", answer="a b")],
        [scene("stone gamma."), scene("stone alpha.")],
        [scene("wind gamma."), scene("rain gamma.")],
    ]
    prompts = promptset_of_groups(READER, iter(drawn).__next__, 2, {}, {})
    assert [text.split(". ")[0] for text in prompts.texts] == ["stone alpha", "cloud alpha", "wind gamma", "rain gamma"]
    assert prompts.clusters.tolist() == [0, 0, 1, 1]
    assert prompts.dropped == {"an answer is not a single token": 1, "the same prompt came before": 1}


def test_a_group_that_says_the_same_twice_is_never_used():
    with pytest.raises(BadInput, match=r"4 distinct prompts .* the same prompt came before"):
        promptset_of_groups(READER, lambda: [scene("stone alpha."), scene("stone alpha.")], 2, {}, {})
