"""The prompts on which every probe is tried: repeated tokens with all that most probes ask for, or a probe's own."""

from collections.abc import Callable
from dataclasses import replace

import torch

from mneme.batch import Batch
from mneme.closed_book import said_closed_book
from mneme.model import LanguageModel
from mneme.promptset import Promptset

PERIOD, ITEMS = 10, 6
FIRST_ID, N_TOKENS = 0, 39  # of the model: every other id is ordinary


def prompts_for(probe: str, lm: LanguageModel) -> Promptset:
    """Prompts that the probe applies to; a probe that needs what no other does has a line in OWN."""
    return OWN.get(probe, repeated)(lm)


def repeated(lm: LanguageModel, n_items: int = ITEMS) -> Promptset:
    """Two copies of random tokens: pairs with the labels of a scene and answers whose logits the model moves apart."""
    generator = torch.Generator().manual_seed(0)
    body = torch.stack([torch.randperm(N_TOKENS, generator=generator)[:PERIOD] + 1 for _ in range(n_items)])
    ids = torch.cat([torch.full((n_items, 1), FIRST_ID), body, body], dim=1)
    with torch.no_grad():
        moved = lm.hf(ids).logits[:, -1] - lm.hf(ids.flip(0)).logits[:, -1]
    facts = {"period": PERIOD, "copies": 2, "copy": "exact", "offset": 1, "bos_mode": "eot_as_bos"}
    return Promptset(
        Batch(ids, torch.full((n_items,), ids.shape[1]), _labels(n_items)),
        corrupt=Batch.of(ids.flip(0)),
        correct_ids=moved.argmax(dim=1, keepdim=True),
        wrong_ids=moved.argmin(dim=1, keepdim=True),
        facts=facts | {"frequencies": [[token + 1, 100 * (N_TOKENS - token) ** 2] for token in range(N_TOKENS)]},
        conditions={"place": torch.arange(n_items, dtype=torch.float64) // 2},
    )


def _labels(n_items: int) -> dict[str, torch.Tensor]:
    places = {f"{name}_{j}": at + j for name, at in (("list1", 1), ("list2", 1 + PERIOD)) for j in range(PERIOD)}
    places |= {"key": 3, "value": 4, "value_next": 5, "question_first": 12, "question_key": 13, "question": 14}
    return {name: torch.full((n_items,), place) for name, place in (places | {"end": 2 * PERIOD}).items()}


def _of_known_facts(lm: LanguageModel) -> Promptset:
    """Without a question that could be asked on its own, so that every fact counts as known."""
    prompts = repeated(lm)
    labels = {name: at for name, at in prompts.clean.labels.items() if name != "question_first"}
    return replace(prompts, clean=replace(prompts.clean, labels=labels))


def _of_unknown_needles(lm: LanguageModel) -> Promptset:
    """Needles that the model does not happen to say without their context, so that every prompt has a score."""
    prompts = repeated(lm, n_items=2 * ITEMS)
    needles = [[row[at]] for row, at in zip(prompts.clean.ids.tolist(), prompts.clean.labels["value"], strict=True)]
    return prompts.select((~said_closed_book(lm, prompts, needles)).nonzero()[:ITEMS, 0])


def _of_documents(lm: LanguageModel) -> Promptset:
    """Three documents of two tokens, the first of which answers the question."""
    prompts = repeated(lm)
    places = {"key_0": 3, "target_0": 4, "key_1": 6, "target_1": 7, "key_2": 9, "target_2": 10, "target": 4}
    labels = prompts.clean.labels | {name: torch.full((len(prompts),), at) for name, at in places.items()}
    return replace(prompts, clean=replace(prompts.clean, labels=labels))


def _with_concept(lm: LanguageModel) -> Promptset:
    """Prompts told apart by their last token, each in a group of its own."""
    prompts = repeated(lm, n_items=80)
    last = prompts.clean.ids[:, -1]
    order = torch.argsort(last, stable=True)
    concept = torch.zeros(len(prompts), dtype=torch.float64).index_fill(0, order[len(order) // 2 :], 1.0)
    return replace(prompts, conditions={"concept": concept, "concept_key": last.double()})


def _in_groups(lm: LanguageModel) -> Promptset:
    """Groups of three prompts that differ in place, the last of them read twice."""
    prompts = repeated(lm)
    places = torch.arange(len(prompts), dtype=torch.float64) % 3
    conditions = {"place": places, "reads": torch.where(places == 2, 2.0, 1.0).double()}
    return replace(prompts, clusters=torch.arange(len(prompts)) // 3, conditions=conditions)


def _of_two_names(lm: LanguageModel) -> Promptset:
    """With the labels of indirect objects, and answers that the model prefers."""
    prompts = repeated(lm)
    places = {"io": 2, "s1": 5, "s1_next": 6, "s2": 15, "end": 2 * PERIOD}
    labels = {name: torch.full((len(prompts),), place) for name, place in places.items()}
    with torch.no_grad():
        logits = lm.hf(prompts.clean.ids).logits[:, -1]
    return replace(
        prompts,
        clean=replace(prompts.clean, labels=labels),
        correct_ids=logits.argmax(dim=1, keepdim=True),
        wrong_ids=logits.argmin(dim=1, keepdim=True),
        facts={**prompts.facts, "corrupt": "abc"},
    )


def _of_colors(lm: LanguageModel) -> Promptset:
    """With the labels of colored objects; right in half of the prompts, so that there is something to repair."""
    prompts = repeated(lm)
    places = {"correct_color": 3, "wrong_color_0": 5, "wrong_color_1": 8, "end": 2 * PERIOD}
    labels = {name: torch.full((len(prompts),), place) for name, place in places.items()}
    with torch.no_grad():
        order = lm.hf(prompts.clean.ids).logits[:, -1].argsort(dim=1)
    is_right = (torch.arange(len(prompts)) % 2 == 0)[:, None]
    low, high = order[:, :1], order[:, -1:]
    return replace(
        prompts,
        clean=replace(prompts.clean, labels=labels),
        correct_ids=torch.where(is_right, high, low),
        wrong_ids=torch.where(is_right, low, high),
    )


OF_GROUPS = ("read_twice_gain", "u_index")  # one number a group of prompts, on one of them
OWN: dict[str, Callable[[LanguageModel], Promptset]] = {
    "evidence_margin": _of_documents,
    "concept_depth": _with_concept,
    "retrieval_score": _of_unknown_needles,
    "ioi_circuit": _of_two_names,
    **dict.fromkeys(("colored_objects_repair", "repair_curve"), _of_colors),
    **dict.fromkeys(OF_GROUPS, _in_groups),
    **dict.fromkeys(("conflict_pruning", "context_rate", "memory_rate", "other_rate"), _of_known_facts),
    **dict.fromkeys(("ph3_importance", "value_scaling"), _of_known_facts),
}
FEW: dict[str, dict[str, object]] = {  # parameters of probes whose own take long
    "edge_circuits": {"fractions": [0.05, 0.5, 1.0], "ablations": ["corrupt", "zero"]}
    | {"n_random": 2, "n_knockouts": 2, "n_single": 2, "n_exact_top": 3, "n_exact_random": 3},
    "acdc": {"n_taus": 2, "least_tau": 0.1, "least": 0.05, "n_random": 2},
}
