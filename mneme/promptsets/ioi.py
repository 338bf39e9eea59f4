"""Indirect object identification: of two people, who gets what the other gives."""

from __future__ import annotations

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, joined, told
from mneme.words import Words, words_for

OPENINGS = ("Then, {first} and {second} went to the {place}.", "When {first} and {second} were at the {place},")
GIVINGS = ("{s2} gave a {gift} to", "{s2} handed a {gift} to", "{s2} showed a {gift} to")
DISTRACTORS = ("none", "bystander", "balanced", "mixed")
CORRUPTIONS = ("abc", "s2_to_io", "s2_random")


@promptset(needs_tokenizer=True, source="Wang et al. 2022; METHODS 5a")
def ioi(
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 200,
    split: str = "evaluation",
    distractors: str = "none",
    corrupt: str = "abc",
) -> Promptset:
    """'Then, Mary and John went to the store. John gave a drink to' -> Mary, with names in both orders.

    distractors: `none` as in the paper; `bystander` puts a sentence about a third person in front or between, so that
    the answer is not the only name that stands once; `balanced` puts one about the indirect object between, so that
    both names stand as often and either may stand first; `mixed` draws one of the three for each prompt. Without them,
    counting names is enough.
    corrupt: `abc` fills the three name slots with three other names; `s2_to_io` lets the indirect object give, which
    turns the answer round; `s2_random` lets another person give.
    Labels: io, s1, s1_next, s2, end (positions of METHODS 5a), place, gift.
    Facts: distractors, corrupt, split. Wrong answers: every other name of the prompt.
    Raises: BadInput where the tokenizer has too few single-token names or n_items exceeds what can be told.
    """
    place = "ioi"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    kind = one_of(f"{place}.distractors", distractors, DISTRACTORS)
    corrupt = one_of(f"{place}.corrupt", corrupt, CORRUPTIONS)
    words = words_for(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    reader = SceneReader(vocabulary, place, followed=("s1",))
    facts = {"distractors": kind, "corrupt": corrupt, "split": split}
    return promptset_of_scenes(reader, lambda: scene(rng, words, kind, corrupt), n_items, facts, words.rejected)


def scene(rng: np.random.Generator, words: Words, distractors: str = "mixed", corrupt: str = "abc") -> Scene:
    """One scene; its binding is the pair of names."""
    if distractors == "mixed":
        distractors = str(rng.choice(DISTRACTORS[:3]))
    io, s, third, *fresh = words.first_allowed(lambda: words.draw(rng, "names", 6), lambda drawn: [drawn[:2]])
    order = int(rng.integers(2))
    opening, giving = (int(rng.integers(len(each))) for each in (OPENINGS, GIVINGS))
    slots = dict(zip(("place", "gift"), (words.draw(rng, kind, 1)[0] for kind in ("places", "gifts")), strict=True))
    before = {"none": None, "bystander": third, "balanced": io}[distractors]
    elsewhere = words.draw(rng, "places", 1, but=(slots["place"],))[0]
    is_between = distractors == "balanced" or bool(rng.integers(2))

    def tell(io: str, s1: str, s2: str, before: str | None) -> tuple[Told, Told]:
        remark = Told(f"{before} liked the {elsewhere}.") if before else Told("")
        first, second = (("io", io), ("s1", s1)) if order else (("s1", s1), ("io", io))
        text = OPENINGS[opening].replace("{first}", f"{{{first[0]}}}").replace("{second}", f"{{{second[0]}}}")
        opened = told(text, **dict([first, second]), place=slots["place"])
        context = joined([opened, remark] if is_between else [remark, opened])
        return context, told(GIVINGS[giving], s2=s2, gift=slots["gift"])

    context, asked = tell(io, s, s, before)
    swapped = {
        "abc": (fresh[0], fresh[1], fresh[2], fresh[0] if before == io else before),
        "s2_to_io": (io, s, io, before),
        "s2_random": (io, s, fresh[2], before),
    }[corrupt]
    others = (s,) if before in (None, io) else (s, third)
    return Scene(
        context=context,
        questions=(Question(asked, answer=io, wrong=others),),
        corrupt=joined(tell(*swapped)),
        binding=(io, s),
        cluster=f"{opening}.{giving}.{order}.{distractors}",
    )
