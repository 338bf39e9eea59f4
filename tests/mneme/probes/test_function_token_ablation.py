"""Function tokens set to the mean stream, against hooks of one's own, and where nothing can be lost."""

import pytest
import torch

from mneme.batch import Batch
from mneme.capturing import capture
from mneme.errors import NotApplicable
from mneme.function_tokens import is_function_token, is_text, matched
from mneme.measuring import measure
from mneme.model import LanguageModel, load_model
from mneme.probe import probes
from mneme.promptset import Promptset
from tests.architectures import tiny
from tests.planted import save, uniform_model

PROBE = probes.get("function_token_ablation")
FACTS = {"offset": 1, "frequencies": [[5, 60_000], [6, 30_000], [7, 30_000]]}
IDS = torch.randint(5, 8, (4, 16), generator=torch.Generator().manual_seed(0))
PROMPTS = Promptset(Batch(IDS, torch.tensor([16, 16, 12, 16])), facts=FACTS)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_it_is_what_a_hook_on_the_layer_s_input_gives(name):
    lm = LanguageModel(tiny(name), name, None, "cpu")
    found = measure(PROBE, {}, PROMPTS, lm=lm, probe_seed=3)
    is_function, inside = is_function_token(PROMPTS, 0.4), is_text(PROMPTS)
    drawn = torch.rand(IDS.shape, generator=torch.Generator().manual_seed(3))
    places = matched(is_function, inside & ~is_function, drawn)
    residual = capture(lm, PROMPTS.clean, ["residual"])["residual"]
    for layer in range(lm.n_layers):
        mean = residual[:, layer][inside].mean(dim=0)
        clean = losses(lm, inside & ~places[0] & ~places[1])
        for kind, chosen in zip(("function", "content"), places, strict=True):

            def enter(_, args, options, mean=mean, chosen=chosen):
                states = (args[0] if args else options["hidden_states"]).clone()
                states[chosen] = mean
                return ((states, *args[1:]), options) if args else (args, options | {"hidden_states": states})

            hook = lm.structure.parts[layer].layer.register_forward_pre_hook(enter, with_kwargs=True)
            expected = losses(lm, inside & ~places[0] & ~places[1]) - clean
            hook.remove()
            measured = found[f"curve.loss_without_{kind}.values"][:, layer]
            torch.testing.assert_close(measured, expected, atol=2e-5, rtol=1e-3)


def losses(lm, counted):
    log_probs = torch.log_softmax(lm.logits(PROMPTS.clean).float(), dim=-1)
    rows = []
    for item, length in enumerate(PROMPTS.clean.lengths.tolist()):
        at = torch.nonzero(counted[item, : length - 1])[:, 0]
        rows.append(-log_probs[item, at, IDS[item, at + 1]].mean())
    return torch.stack(rows)


def test_a_model_that_moves_nothing_between_tokens_loses_nothing(tmp_path):
    lm = load_model(save(uniform_model(), tmp_path))
    found = measure(PROBE, {}, PROMPTS, lm=lm)
    assert float(found["curve.loss_without_function.values"].nan_to_num(0.0).abs().max()) < 1e-6


def test_a_prompt_of_one_class_has_no_number():
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    only = Promptset(Batch.of(torch.full((2, 16), 6)), facts=FACTS)
    assert bool(measure(PROBE, {}, only, lm=lm)["curve.loss_without_content.values"].isnan().all())


def test_a_small_corpus_makes_no_sense():
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    with pytest.raises(NotApplicable, match="100000"):
        measure(PROBE, {}, Promptset(PROMPTS.clean, facts={"offset": 1}), lm=lm)
