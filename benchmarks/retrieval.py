"""The retrieval score: over a grid of prompts that share their haystacks, and of one long prompt."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks import material
from benchmarks.measured import Beside, Measured, best_of
from mneme.batch import Batch
from mneme.encoding import padded
from mneme.model import load_model
from mneme.probes.retrieval_score import retrieval_score
from mneme.promptset import Promptset
from mneme.shared_prefix import prefix_tree

N_LENGTHS, N_DEPTHS, N_NEEDLES = (4, 3, 2) if material.IS_SMALL else (20, 10, 3)
N_VALUE, N_QUESTION, N_SENTENCE = 4, 8, 10  # tokens of a needle's answer, of the question, of a sentence
N_SAID = 8


def grid(folder: Path, shape: str, longest: int, *, is_said: bool = False) -> Measured:
    """Every head's score over lengths x depths x needles, beside plain forwards of prompts of the longest length.

    over_counted_work: seconds in plain forwards, over the tokens of all distinct prefixes in such forwards; 1 = as fast
    as if each prefix ran once in a plain forward of long prompts. distinct_share: their tokens over all tokens.
    is_said: the model says its answer, N_SAID tokens of it, each of them counted once; else the needle is given to it.
    """
    lm = load_model(material.model_folder(shape, folder))
    prompts = needles(lm.vocab_size, longest // 8 if material.IS_SMALL else longest)
    batch = prompts.clean
    n_answer = len(batch) * ((N_SAID if is_said else N_VALUE) - 1)
    counted = prefix_tree(batch, batch.lengths - 1).n_distinct + n_answer
    plain = batch.ids[batch.lengths == batch.ids.shape[1]][:1]
    with torch.no_grad():
        lm.backbone.hidden(plain)
        beside = Beside(lambda: lm.backbone.hidden(plain))
        how = {"decoding": "greedy", "n_steps": N_SAID} if is_said else {"decoding": "forced"}
        found = retrieval_score(lm, prompts, progress=beside, **how)
        beside.close()
    facts = {
        "over_counted_work": beside.forwards * plain.numel() / counted,
        "cpu_over_counted_work": beside.cpu_forwards * plain.numel() / counted,
        "distinct_share": counted / (int(batch.lengths.sum()) + n_answer),
        "plain_spread": max(beside.plains) / min(beside.plains),
    }
    return Measured(found.mean(dim=0).numpy(), beside.seconds, beside.cpu_seconds, facts)


def one_prompt(folder: Path, shape: str, n_tokens: int, what: str) -> Measured:
    """The score of one long prompt, or (`plain`) a plain forward of it with the same logits."""
    lm = load_model(material.model_folder(shape, folder))
    ids = material.long_prompt(lm.vocab_size, n_tokens)
    at = ids.shape[1] // 2
    labels = {"value_first": torch.tensor([at]), "value": torch.tensor([at + N_VALUE - 1])}
    prompts = Promptset(Batch(ids, torch.tensor([ids.shape[1]]), labels))
    forced = torch.cat([ids, ids[:, at : at + N_VALUE - 1]], dim=1)

    def run() -> torch.Tensor:
        if what != "plain":
            return torch.as_tensor(retrieval_score(lm, prompts))
        return lm.backbone.unembed(lm.backbone.hidden(forced)[0, -N_VALUE:])

    with torch.no_grad():
        _, seconds, cpu = best_of(1, run)
    return Measured(torch.zeros(0).numpy(), seconds, cpu)


def needles(vocab_size: int, longest: int) -> Promptset:
    """Random haystacks, each with a needle at several depths and cut to several lengths, as a needle grid cuts them."""
    generator = torch.Generator().manual_seed(4)
    rows, first = [], []
    for _ in range(N_NEEDLES):
        hay = torch.randint(vocab_size, (longest,), generator=generator).tolist()
        needle = torch.randint(vocab_size, (2 * N_VALUE,), generator=generator).tolist()
        question = torch.randint(vocab_size, (N_QUESTION,), generator=generator).tolist()
        for length in torch.linspace(0.4 * longest, longest, N_LENGTHS).long().tolist():
            kept = (length - len(needle) - N_QUESTION) // N_SENTENCE * N_SENTENCE
            for depth in torch.linspace(0, 1, N_DEPTHS).tolist():
                at = int(depth * kept) // N_SENTENCE * N_SENTENCE
                rows.append([*hay[:at], *needle, *hay[at:kept], *question])
                first.append(at + N_VALUE)
    starts = torch.tensor(first)
    return Promptset(padded(rows, {"value_first": starts, "value": starts + N_VALUE - 1}))
