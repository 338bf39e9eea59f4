"""Recall in ids: a dictionary is always right, its controls leave a guess, and what does not fit is refused."""

import pytest
import torch

from mneme.errors import BadInput
from mneme.promptset import Vocabulary
from mneme.promptsets.multi_query_recall import multi_query_recall

SIZES = [4, 8, 32]
PLAIN = Vocabulary(100, 256, "native", 99, frozenset({99}))


def build(control="none", seed=0, **changes):
    return multi_query_recall(PLAIN, **({"seed": seed, "n_items": 60, "n_pairs": SIZES, "control": control} | changes))


def rows(prompts):
    """Keys and values told, keys asked, right answer of each prompt."""
    for item in range(len(prompts)):
        n_pairs = int(prompts.conditions["n_pairs"][item])
        row = prompts.clean.ids[item, : prompts.clean.lengths[item]].tolist()
        yield (
            row[1 : 2 * n_pairs : 2],
            row[2 : 2 * n_pairs + 1 : 2],
            row[2 * n_pairs + 1 :: 2],
            prompts.correct_ids[item],
        )


def test_a_dictionary_knows_every_answer_at_its_label():
    prompts = build()
    labels = prompts.clean.labels
    for item, (keys, values, asked, right) in enumerate(rows(prompts)):
        assert dict(zip(keys, values, strict=True))[asked[-1]] == int(right)
        assert len(set(asked)) == len(asked)
        assert set(asked) <= set(keys)
        ids = prompts.clean.ids[item]
        assert int(ids[labels["end"][item]]) == int(ids[labels["key"][item]]) == asked[-1]
        assert int(ids[labels["value"][item]]) == int(right)
    assert sorted(torch.cat([prompts.correct_ids, prompts.wrong_ids], dim=1)[0].tolist()) == [73, 74, 75, 76]


def test_lists_of_one_cluster_are_part_of_each_other_and_ask_the_same():
    prompts = list(rows(build()))
    for first in range(0, len(prompts), len(SIZES)):
        short, middle, long = (
            {pair: at for at, pair in enumerate(zip(*each[:2], strict=True))} for each in prompts[first : first + 3]
        )
        assert short.keys() <= middle.keys() <= long.keys()
        assert sorted(short, key=long.__getitem__) == list(short)
        assert len({each[2][-1] for each in prompts[first : first + 3]}) == 1


def test_the_controls_have_the_same_lists_and_a_reader_of_them_can_but_guess():
    plain, shuffled, unseen = (
        list(rows(build(control, n_items=400))) for control in ("none", "shuffled_values", "unseen_key")
    )
    hits, shares = dict.fromkeys(SIZES, 0), dict.fromkeys(SIZES, 0.0)
    for one, two, three in zip(plain, shuffled, unseen, strict=True):
        assert one[0] == two[0] == three[0]
        assert sorted(one[1]) == sorted(two[1])
        assert one[1] == three[1]
        assert one[2] == two[2]
        assert one[2][:-1] == three[2][:-1]
        assert three[2][-1] not in three[0]
        assert one[3] == two[3] == three[3]
        n_pairs, right = len(one[0]), int(one[3])
        hits[n_pairs] += dict(zip(two[0], two[1], strict=True))[two[2][-1]] == right
        shares[n_pairs] += two[1].count(right) / n_pairs
    for n_pairs in SIZES:
        guess = (1 + (n_pairs - 1) / 4) / n_pairs
        assert shares[n_pairs] / 400 == pytest.approx(guess, abs=0.05)
        assert hits[n_pairs] / 400 == pytest.approx(guess, abs=0.08)


def test_the_corrupt_prompt_says_another_value_of_the_asked_key_and_nothing_else():
    prompts = build()
    differs = prompts.clean.ids != prompts.corrupt.ids
    assert (differs.sum(dim=1) == 1).all()
    assert torch.equal(differs.int().argmax(dim=1), prompts.clean.labels["value"])
    said = prompts.corrupt.ids.gather(1, prompts.clean.labels["value"][:, None])
    assert (said == prompts.wrong_ids).any(dim=1).all()


def test_a_model_without_a_first_token_gets_the_same_rows_without_it():
    bare = multi_query_recall(Vocabulary(100, 256, "none", None, frozenset({99})), seed=0, n_items=5, n_pairs=[4])
    begun = build(n_items=5, n_pairs=[4])
    assert torch.equal(begun.clean.ids[:, 1 : 1 + bare.clean.ids.shape[1]], bare.clean.ids)
    assert torch.equal(begun.clean.labels["key"], bare.clean.labels["key"] + 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_pairs": [4, 72]}, "n_pairs"),
        ({"n_pairs": [1]}, "n_pairs"),
        ({"n_keys": 96}, "needs 101 ids and the vocabulary offers 99"),
        ({"n_pairs": [70]}, "prompts of up to 280 tokens and the model's context is 256"),
        ({"n_values": 1}, "n_values"),
        ({"control": "other"}, "control"),
        ({"n_items": 0}, "n_items"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(BadInput, match=words):
        build(**changes)
