import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mneme.batch import Batch
from mneme.bigram import bigram_model, count_pairs
from mneme.errors import BadInput, NotApplicable
from mneme.measuring import measure
from mneme.model import LanguageModel, load_model
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.scoring import token_scores
from mneme.vocabulary import read_vocabulary
from mneme.weights import read_folder

ROWS = [[0, 1, 2, 1, 2], [0, 1, 3]]  # 0-1 twice, 1-2 twice, 2-1 once, 1-3 once


def loaded(folder: Path, smoothing: float = 0.5) -> LanguageModel:
    bigram_model(count_pairs(ROWS, 5), smoothing, context=12, bos_token_id=0).save_pretrained(folder)
    return load_model(folder)


def test_pairs_are_counted_within_rows() -> None:
    counts = count_pairs(ROWS, 5)
    found = {(last, then): counts[last, then] for last, then in np.argwhere(counts).tolist()}
    assert found == {(0, 1): 2, (1, 2): 2, (2, 1): 1, (1, 3): 1}


def test_a_probability_is_its_count_with_a_share_of_the_frequency(tmp_path: Path) -> None:
    probabilities = loaded(tmp_path).logits(torch.tensor([[0, 1, 2, 3, 4]]))[0].double().exp()
    # 6 pairs end in 1 (3 times), 2 (twice), 3 (once): P = (1, 4, 3, 2, 1) / 11
    assert probabilities[1, 2].item() == pytest.approx((2 + 0.5 * 3 / 11) / 3.5, rel=1e-5)
    assert probabilities[1, 4].item() == pytest.approx((0.5 * 1 / 11) / 3.5, rel=1e-5)
    assert probabilities[4].tolist() == pytest.approx([each / 11 for each in (1, 4, 3, 2, 1)], rel=1e-5)
    assert probabilities.sum(dim=1).tolist() == pytest.approx([1.0] * 5, rel=1e-5)


def test_it_sees_the_last_token_alone(tmp_path: Path) -> None:
    lm = loaded(tmp_path)
    one, other = lm.logits(torch.tensor([[0, 1, 3, 2]]))[0, -1], lm.logits(torch.tensor([[4, 4, 2]]))[0, -1]
    assert torch.equal(one, other)


def test_the_loss_is_the_log_of_the_table_and_padding_changes_nothing(tmp_path: Path) -> None:
    lm = loaded(tmp_path)
    batch = Batch(torch.tensor([[0, 1, 2, 1], [0, 1, 4, 4]]), torch.tensor([4, 2]))
    found = token_scores(lm, batch).log_prob
    assert found[1, 0].item() == pytest.approx(math.log((2 + 0.5 * 4 / 11) / 2.5), rel=1e-5)
    assert found[1, 0] == found[0, 0]
    assert torch.isnan(found[1, 1:]).all()


def test_it_is_an_ordinary_folder_that_only_behavior_probes_read(tmp_path: Path) -> None:
    lm = loaded(tmp_path)
    facts, vocabulary = read_folder(tmp_path), read_vocabulary(tmp_path, "native")
    assert (facts.vocab_size, facts.context, facts.architecture) == (5, 12, "BigramForCausalLM")
    assert (vocabulary.first_id, vocabulary.context) == (0, 12)
    prompts = Promptset(Batch.of(torch.tensor([[0, 1, 2]])))
    assert torch.isfinite(measure(probes.get("next_token_loss"), {}, prompts, lm=lm)["values"]).all()
    with pytest.raises(NotApplicable, match="only behavior probes apply to it"):
        measure(probes.get("previous_token"), {}, prompts, lm=lm)


def test_bad_requests_are_refused() -> None:
    with pytest.raises(BadInput, match="smoothing"):
        bigram_model(np.ones((2, 2)), 0.0, context=4)
    with pytest.raises(BadInput, match="over one vocabulary"):
        bigram_model(np.ones((2, 3)), 1.0, context=4)
