"""A concept to read off a model: in which half of a list of pairs the asked key stands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mneme.arguments import whole_number
from mneme.errors import BadInput
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.promptsets.key_value_recall import Recall
from mneme.promptsets.key_value_recall import scene as recall_scene
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Scene
from mneme.words import words_for


@promptset(needs_tokenizer=True, source="Arora et al. 2023 (Zoology); METHODS 17, 15")
def slot_of_k(
    vocabulary: Vocabulary, *, seed: int, n_items: int = 400, split: str = "evaluation", n_pairs: int = 8
) -> Promptset:
    """'Pairs: river alpha stone beta ... cloud gamma. Again: stone', the key in the first half or in the second.

    n_pairs: an even number, so that the halves are as large; the asked key follows the pairs at once.
    Conditions: concept, 1 where the asked key stands in the second half; concept_key, the number of the asked key;
    place, that of the asked pair from 0. Clusters: the asked key, so that no key is asked on both sides of a fold.
    Labels, answers and corrupt prompts are those of `key_value_recall`.
    Raises: BadInput for an odd n_pairs, or where the tokenizer has too few single-token words for the pairs.
    """
    place = "slot_of_k"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    recall = Recall(whole_number(f"{place}.n_pairs", n_pairs, 2), n_slots=1)
    if n_pairs % 2:
        raise BadInput(f"{place}.n_pairs is {n_pairs}: give an even number, so that both halves are as large")
    words = words_for(vocabulary, place, split)
    keys = {key: number for number, key in enumerate(words.of("nouns"))}
    rng = np.random.default_rng(seed)

    def draw() -> Scene:
        told = recall_scene(rng, words, recall)
        key, slot = told.binding[0], told.conditions["place"]
        concept = {"concept": float(slot >= n_pairs / 2), "concept_key": float(keys[key])}
        return replace(told, cluster=key, conditions={**told.conditions, **concept})

    facts = {"n_pairs": n_pairs, "split": split}
    reader = SceneReader(vocabulary, place, followed=("value",))
    return promptset_of_scenes(reader, draw, n_items, facts, words.rejected)
