"""A concept to read off a model: whether what is asked stands in the context at all."""

from __future__ import annotations

from itertools import cycle

import numpy as np

from mneme.arguments import whole_number
from mneme.encoding import encode, tokenizer_of
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.promptsets.needle import DEPTHS, OPENING, Hay
from mneme.promptsets.needle import scene as needle_scene
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Scene, Told
from mneme.words import words_for


@promptset(needs_tokenizer=True, source="METHODS 17, 2a")
def evidence_present(
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 400,
    split: str = "evaluation",
    n_tokens: int = 64,
    n_needles: int = 3,
) -> Promptset:
    """'Remember this. ... The secret code of Mary is alpha. ... So the secret code of' Mary, or Tom, 'is'.

    One prompt in two asks a name that has a needle, the others a name that stands nowhere before: what is to be known
    is whether the name was met. Needles, filler and depth are those of `needle`, drawn anew for each prompt.
    n_tokens: length of the prompt, its first token included; prompts fall short of it by less than a sentence.
    Conditions: concept, 1 where the needle is there; concept_key, the number of the asked name.
    Clusters: the asked name, so that no name is asked on both sides of a fold. Labels: question_key, end. No answers.
    Raises: BadInput for a length that exceeds the context or leaves no room, and where the tokenizer has too few
    single-token words.
    """
    place = "evidence_present"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    n_tokens = whole_number(f"{place}.n_tokens", n_tokens, 1, vocabulary.context)
    n_needles = whole_number(f"{place}.n_needles", n_needles, 2, 8)
    words = words_for(vocabulary, place, split)
    tokenizer = tokenizer_of(vocabulary, place)
    names = {name: number for number, name in enumerate(words.of("names"))}
    rng = np.random.default_rng(seed)
    is_present = cycle((True, False))
    n_told = n_tokens - (vocabulary.first_id is not None) - len(encode(tokenizer, OPENING))

    def draw() -> Scene:
        hay = Hay(n_told, float(rng.choice(DEPTHS)), lambda text: len(encode(tokenizer, f" {text}")))
        return _asked(needle_scene(rng, words, n_needles, hay, "key"), next(is_present), names)

    facts = {"n_tokens": n_tokens, "n_needles": n_needles, "split": split}
    return promptset_of_scenes(SceneReader(vocabulary, place), draw, n_items, facts, words.rejected)


def _asked(told: Scene, is_present: bool, names: dict[str, int]) -> Scene:
    """The prompt of a scene, or its counterpart that asks a name without a needle."""
    prompt = told.prompt if is_present or told.corrupt is None else told.corrupt
    start, end = prompt.spans["question_key"]
    name = prompt.text[start:end]
    return Scene(
        context=Told(prompt.text, {"question_key": (start, end)}),
        questions=(),
        cluster=name,
        conditions={"concept": float(is_present), "concept_key": float(names[name])},
    )
