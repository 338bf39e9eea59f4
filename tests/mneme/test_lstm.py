from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Mamba2Config, Mamba2ForCausalLM, PreTrainedModel

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.lstm import LstmForCausalLM, lstm_model
from mneme.measuring import head_scores, measure
from mneme.model import load_model
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.scoring import answer_scores, token_scores
from mneme.vocabulary import read_vocabulary
from mneme.weights import read_folder

VOCABULARY, CONTEXT, FIRST = 30, 40, 29
MEMORIES = ["lstm", "mamba2"]


def memory(name: str) -> PreTrainedModel:
    """A small random model without attention."""
    torch.manual_seed(0)
    if name == "lstm":
        return lstm_model(VOCABULARY, 16, 2, CONTEXT, FIRST)
    config = Mamba2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_heads=4,
        head_dim=8,
        state_size=4,
        n_groups=1,
        chunk_size=8,
        bos_token_id=FIRST,
        eos_token_id=FIRST,
        pad_token_id=None,
        max_position_embeddings=CONTEXT,
    )
    return Mamba2ForCausalLM(config)


def by_hand(model: LstmForCausalLM, ids: Tensor) -> Tensor:
    """Logits [position vocab] of one prompt, gate by gate (Hochreiter & Schmidhuber 1997), in float64."""
    weights = {name: each.detach().double() for name, each in model.named_parameters()}
    states = weights["lstm.embeddings.weight"][ids]
    for layer in range(2):
        into, again, bias, more = (
            weights[f"lstm.layers.{kind}_l{layer}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        hidden = cell = torch.zeros(16, dtype=torch.float64)
        outputs = []
        for state in states:
            write, keep, new, show = (into @ state + bias + again @ hidden + more).view(4, -1)
            cell = keep.sigmoid() * cell + write.sigmoid() * new.tanh()
            hidden = show.sigmoid() * cell.tanh()
            outputs.append(hidden)
        states = torch.stack(outputs)
    return states @ weights["lstm.embeddings.weight"].T + weights["lm_head.bias"]


def test_the_logits_are_those_of_the_gates_written_out() -> None:
    model = memory("lstm")
    ids = torch.arange(12) % 7
    with torch.no_grad():
        found = model(ids[None]).logits[0].double()
    assert torch.allclose(found, by_hand(model, ids), atol=1e-5)


def test_a_new_lstm_keeps_its_memory_open_and_ties_its_embeddings() -> None:
    model = memory("lstm")
    for layer in range(2):
        gates = getattr(model.lstm.layers, f"bias_ih_l{layer}").view(4, -1).mean(dim=1)
        assert gates.tolist() == [0, 1, 0, 0]
    assert model.lm_head.weight is model.lstm.embeddings.weight


@pytest.mark.parametrize("name", MEMORIES)
def test_a_saved_memory_loads_through_the_gate_with_the_same_logits(name: str, tmp_path: Path) -> None:
    model = memory(name).eval()
    model.save_pretrained(tmp_path)
    lm = load_model(tmp_path)
    ids = torch.arange(20).reshape(2, 10)
    with torch.no_grad():
        assert torch.allclose(lm.logits(ids), model(ids).logits, atol=1e-6)
    assert not lm.attention
    assert lm.parity.logits <= 1e-5
    assert (lm.n_layers, lm.d_model, lm.vocab_size, lm.context) == (2, 16, VOCABULARY, CONTEXT)


@pytest.mark.parametrize("name", MEMORIES)
def test_the_folder_check_and_the_vocabulary_know_its_context_and_first_token(name: str, tmp_path: Path) -> None:
    memory(name).save_pretrained(tmp_path)
    facts = read_folder(tmp_path)
    assert (facts.n_layers, facts.d_model, facts.vocab_size, facts.context) == (2, 16, VOCABULARY, CONTEXT)
    vocabulary = read_vocabulary(tmp_path, "native")
    assert (vocabulary.context, vocabulary.first_id, vocabulary.size) == (CONTEXT, FIRST, VOCABULARY)
    with pytest.raises(BadInput, match=f"exceed the {CONTEXT}"):
        load_model(tmp_path).batch(torch.zeros(1, CONTEXT + 1, dtype=torch.int64))


@pytest.mark.parametrize("name", MEMORIES)
def test_padding_on_the_right_changes_no_score(name: str, tmp_path: Path) -> None:
    memory(name).save_pretrained(tmp_path)
    lm = load_model(tmp_path)
    ids = torch.randint(VOCABULARY, (2, 19), generator=torch.Generator().manual_seed(1))
    batch = Batch(ids, torch.tensor([19, 11]))
    alone = Batch.of(ids[1:, :11])
    answers = torch.tensor([[3], [4]])
    padded, bare = token_scores(lm, batch), token_scores(lm, alone)
    assert torch.allclose(padded.log_prob[1, :10], bare.log_prob[0, :10], atol=1e-5)
    assert torch.isnan(padded.log_prob[1, 10:]).all()
    both = answer_scores(lm, batch, answers), answer_scores(lm, alone, answers[1:])
    assert torch.allclose(both[0].correct[1], both[1].correct[0], atol=1e-5)


@pytest.mark.parametrize("name", MEMORIES)
def test_only_behavior_can_be_probed(name: str, tmp_path: Path) -> None:
    memory(name).save_pretrained(tmp_path)
    lm = load_model(tmp_path)
    ids = torch.arange(20).reshape(2, 10)
    loss = measure(probes.get("next_token_loss"), {}, Promptset(Batch.of(ids)), lm=lm)["values"]
    assert torch.isfinite(loss).all()
    with pytest.raises(NotApplicable, match="only behavior probes apply to it"):
        head_scores(lm, ids, "previous_token")


@pytest.mark.parametrize("size", ["vocab_size", "width", "n_layers", "context"])
def test_a_size_that_is_no_whole_number_is_refused(size: str) -> None:
    sizes = {"vocab_size": 30, "width": 16, "n_layers": 1, "context": 8, size: 0}
    with pytest.raises(BadInput, match=f"lstm_model.{size}"):
        lstm_model(**sizes)
