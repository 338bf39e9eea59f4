import pytest
import torch

from mneme.attention import AttentionInputs
from mneme.attention_shares import matched_shares, offset_shares
from mneme.batch import Batch
from mneme.errors import BadInput
from mneme.probes.attention_distance import attention_distance
from mneme.probes.attention_entropy import attention_entropy
from mneme.probes.duplicate_token import duplicate_token
from mneme.probes.first_token_sink import first_token_sink
from mneme.probes.induction import induction
from mneme.probes.previous_token import previous_token
from mneme.probes.relative_attention_distance import relative_attention_distance
from mneme.promptset import Promptset
from tests.patterns import harmonic, looking_back, prompts_of, repeated, uniform


def plain(n_tokens):
    return prompts_of(torch.arange(n_tokens)[None])


def random_layer(n_tokens, items=2, heads=3, **facts):
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(items, heads, n_tokens, 8, generator=generator) for _ in range(2))
    lengths = torch.full((items,), n_tokens)
    return AttentionInputs(layer=0, query=query, key=key, lengths=lengths, scale=0.7, **facts)


def dense(layer):
    return layer.rows(torch.arange(layer.n_queries))


@pytest.mark.parametrize("n_tokens", [3, 10, 41])
def test_uniform_attention_gives_the_previous_token_the_harmonic_share(n_tokens):
    found = previous_token(uniform(n_tokens), plain(n_tokens))
    assert float(found) == pytest.approx((harmonic(n_tokens) - 1) / (n_tokens - 1), abs=1e-6)


@pytest.mark.parametrize(("period", "share"), [(20, 0.032879), (50, 0.013569)])
def test_uniform_attention_gives_induction_the_harmonic_share(period, share):
    found = induction(uniform(2 * period + 1), repeated(period))
    assert float(found) == pytest.approx(share, abs=1e-6)
    assert float(found) == pytest.approx((harmonic(2 * period + 1) - harmonic(period + 1)) / period, abs=1e-6)


def test_uniform_attention_gives_the_first_token_the_harmonic_mean_and_spreads_fully():
    layer, prompts = uniform(64), plain(64)
    assert float(first_token_sink(layer, prompts)) == pytest.approx(harmonic(64) / 64, abs=1e-6)
    assert float(attention_entropy(layer, prompts)) == pytest.approx(1, abs=1e-6)
    assert float(attention_distance(layer, prompts)) == pytest.approx(15.75, abs=1e-5)
    assert float(relative_attention_distance(layer, prompts)) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(("n_tokens", "alpha"), [(3, 0.6111), (4, 0.5208), (64, 0.0741)])
def test_the_sink_of_uniform_attention_is_not_one_over_the_length(n_tokens, alpha):
    assert float(first_token_sink(uniform(n_tokens), plain(n_tokens))) == pytest.approx(alpha, abs=5e-5)


def test_uniform_heads_count_as_sinks_in_short_prompts_only():
    assert float(first_token_sink(uniform(4), plain(4), eps=0.3)) == 1
    assert float(first_token_sink(uniform(9), plain(9), eps=0.3)) == 1
    assert float(first_token_sink(uniform(10), plain(10), eps=0.3)) == 0
    assert float(first_token_sink(uniform(64), plain(64), eps=0.3)) == 0


@pytest.mark.parametrize("eps", ["0.3", -0.1, 1.0])
def test_a_threshold_that_is_no_share_is_refused(eps):
    with pytest.raises(BadInput, match="eps"):
        first_token_sink(uniform(4), plain(4), eps=eps)


def test_a_head_that_rests_on_the_first_token_is_a_sink_without_entropy():
    layer, prompts = looking_back(20, [0] * 20), plain(20)
    assert float(first_token_sink(layer, prompts)) == 1
    assert float(attention_entropy(layer, prompts)) == pytest.approx(0, abs=1e-12)
    assert float(attention_distance(layer, prompts)) == pytest.approx(9.5)
    assert float(relative_attention_distance(layer, prompts)) == 1
    for found in (attention_entropy, attention_distance):
        assert torch.isnan(found(layer, prompts, exclude_first=True)).all()


def test_a_head_that_looks_at_itself_goes_nowhere():
    layer, prompts = looking_back(20, list(range(20))), plain(20)
    assert float(attention_entropy(layer, prompts)) == pytest.approx(0, abs=1e-12)
    assert float(attention_distance(layer, prompts)) == pytest.approx(0, abs=1e-12)
    assert float(previous_token(layer, prompts)) == pytest.approx(0, abs=1e-12)


def test_each_rule_scores_one_on_its_own_head_and_zero_on_the_others():
    period, offset = 10, 1
    n_tokens = offset + 2 * period
    first = list(range(offset + period))
    later = range(offset + period, n_tokens)
    heads = {
        previous_token: looking_back(n_tokens, [max(0, q - 1) for q in range(n_tokens)]),
        duplicate_token: looking_back(n_tokens, first + [q - period for q in later]),
        induction: looking_back(n_tokens, first + [q - period + 1 for q in later]),
    }
    prompts = repeated(period)
    for rule in heads:
        for owner, layer in heads.items():
            expected = 1.0 if rule is owner else 0.0
            assert float(rule(layer, prompts)) == pytest.approx(expected, abs=1e-6), (rule, owner)


def test_later_copies_count_attention_to_every_earlier_copy():
    period = 8
    n_tokens = 1 + 3 * period
    targets = list(range(n_tokens))
    for query in range(1 + period, 1 + 2 * period):
        targets[query] = query - period + 1
    for query in range(1 + 2 * period, n_tokens):
        targets[query] = query - 2 * period + 1
    assert float(induction(looking_back(n_tokens, targets), repeated(period, copies=3))) == pytest.approx(1)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("exclude_first", [False, True])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("window", [None, 15])
def test_offsets_and_matching_tokens_are_two_roads_to_the_same_shares(shift, copies, exclude_first, offset, window):
    prompts = repeated(12, copies=copies, offset=offset, items=2)
    layer = random_layer(prompts.clean.ids.shape[1], window=window)
    by_offset = offset_shares(layer, prompts.facts, shift, exclude_first)
    by_token = matched_shares(layer, prompts.clean.ids, shift, exclude_first)[..., offset + 12 :]
    torch.testing.assert_close(by_offset, by_token, equal_nan=True, atol=1e-6, rtol=1e-5)


def test_induction_on_text_follows_the_general_form():
    ids = torch.tensor([[9, 5, 6, 7, 5, 6, 5]])
    layer = random_layer(7, items=1)
    rows = dense(layer)[0]
    wanted = (rows[:, 4, 2] + rows[:, 5, 3] + rows[:, 6, 2] + rows[:, 6, 5]) / 3
    torch.testing.assert_close(induction(layer, prompts_of(ids))[0], wanted)
    doubled = (rows[:, 4, 1] + rows[:, 5, 2] + rows[:, 6, 1] + rows[:, 6, 4]) / 3
    torch.testing.assert_close(duplicate_token(layer, prompts_of(ids))[0], doubled)


def test_text_without_repetition_has_nothing_to_match():
    assert torch.isnan(induction(random_layer(12), prompts_of(torch.arange(24).reshape(2, 12)))).all()


def test_a_shuffled_copy_keeps_the_duplicate_and_breaks_the_order():
    period = 16
    shuffled = torch.randperm(period, generator=torch.Generator().manual_seed(3))
    ids = torch.cat([torch.arange(period), shuffled])[None]
    targets = list(range(period)) + shuffled.tolist()
    prompts = prompts_of(ids, period=period, copies=2, offset=0, copy="shuffled")
    assert float(duplicate_token(looking_back(2 * period, targets), prompts)) == pytest.approx(1)
    follower = list(range(period)) + [min(each + 1, period - 1) for each in shuffled.tolist()]
    assert float(induction(looking_back(2 * period, follower), prompts)) < 0.3


def test_dropping_the_first_column_renormalises_the_rest():
    prompts = repeated(12, items=2)
    layer = random_layer(25)
    rows = dense(layer).clone()
    rows[..., 0] = 0
    rows = rows / rows.sum(dim=-1, keepdim=True)
    queries = torch.arange(13, 25)
    torch.testing.assert_close(
        induction(layer, prompts, exclude_first=True), rows[:, :, queries, queries - 11].mean(-1), atol=1e-6, rtol=1e-5
    )
    tail = rows[:, :, 2:]
    entropy = -torch.xlogy(tail, tail).sum(-1) / torch.arange(2, 25).float().log()
    torch.testing.assert_close(attention_entropy(layer, prompts, exclude_first=True), entropy.mean(-1))
    back = (torch.arange(25)[:, None] - torch.arange(25)).float()
    distance = (rows[:, :, 1:] * back[1:]).sum(-1).mean(-1)
    torch.testing.assert_close(attention_distance(layer, prompts, exclude_first=True), distance)


def test_a_target_outside_the_window_is_missing_not_zero():
    prompts = repeated(12, items=2)
    assert torch.isnan(induction(random_layer(25, window=8), prompts)).all()
    assert not torch.isnan(induction(random_layer(25, window=12), prompts)).any()
    assert torch.isnan(duplicate_token(random_layer(25, window=12), prompts)).all()
    assert torch.isnan(previous_token(random_layer(25, window=1), prompts)).all()


def test_a_window_normalises_entropy_by_the_keys_inside_it_and_the_sink_by_the_rows_that_see_it():
    query = torch.zeros(1, 1, 40, 4)
    layer = AttentionInputs(layer=0, query=query, key=query, lengths=torch.tensor([40]), scale=1.0, window=8)
    assert float(attention_entropy(layer, plain(40))) == pytest.approx(1, abs=1e-6)
    assert float(attention_entropy(layer, plain(40), exclude_first=True)) == pytest.approx(1, abs=1e-6)
    assert float(first_token_sink(layer, plain(40))) == pytest.approx(harmonic(8) / 8, abs=1e-6)


PROBES = [
    previous_token,
    duplicate_token,
    induction,
    first_token_sink,
    attention_entropy,
    attention_distance,
    relative_attention_distance,
]


@pytest.mark.parametrize("rule", PROBES)
def test_padding_changes_nothing(rule):
    ids = torch.randint(0, 6, (2, 20), generator=torch.Generator().manual_seed(1))
    layer = random_layer(20)
    long = rule(layer, Promptset(Batch.of(ids)))
    short = AttentionInputs(
        layer=0, query=layer.query[1:, :, :14], key=layer.key[1:, :, :14], lengths=torch.tensor([14]), scale=0.7
    )
    mixed = AttentionInputs(layer=0, query=layer.query, key=layer.key, lengths=torch.tensor([20, 14]), scale=0.7)
    found = rule(mixed, Promptset(Batch(ids, torch.tensor([20, 14]))))
    torch.testing.assert_close(found[0], long[0])
    torch.testing.assert_close(found[1], rule(short, Promptset(Batch.of(ids[1:, :14])))[0])


@pytest.mark.parametrize("rule", PROBES)
def test_one_token_is_not_enough(rule):
    assert torch.isnan(rule(uniform(1), plain(1))).all()


@pytest.mark.parametrize("rule", PROBES)
def test_double_precision_agrees_with_single_precision(rule):
    prompts = repeated(12, items=2)
    layer = random_layer(25)
    double = AttentionInputs(
        layer=0, query=layer.query.double(), key=layer.key.double(), lengths=layer.lengths, scale=0.7
    )
    found = rule(double, prompts)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), rule(layer, prompts), atol=1e-5, rtol=1e-5)
