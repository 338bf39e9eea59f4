"""Made-up rows of a large home, and the questions asked of it."""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime

import polars as pl

from storage.lake import Lake

N_HEADS = 32  # in each of 32 layers
N_PROMPTSETS = 50
_HEADS = N_HEADS * N_HEADS
_ITEMS = 20
_NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

# `?` is the number of head scores; delivery i is one of two probes on one of 50 promptsets of one model.
FILL = {
    "trials": f"""
        insert into raw.trials by name select
            md5('d' || i) as delivery_id, left(md5('t' || i), 16) as trial_id,
            'model-' || i // {2 * N_PROMPTSETS} as model, 0 as model_seed, null as step,
            'promptset-' || i // 2 % {N_PROMPTSETS} as promptset, 0 as promptset_seed, i // 2 % 10 = 0 as is_control,
            null as baseline, case i % 2 when 0 then 'induction' else 'previous_token' end as probe,
            'primary' as variant, 0 as probe_seed, 'head' as level, 'fraction of attention' as unit,
            0.0 as low, 1.0 as high, 'delivered' as status, null as error,
            timestamp '2026-01-01' + to_seconds(i) as delivered_at, 1.5 as seconds, 64 as forwards,
            'cpu' as device, 'float32' as dtype, md5('c' || i % 7) as code, '{{"torch": "2.13.0"}}' as versions,
            '{{"weights": "' || md5('w' || i) || '", "code": "' || repeat(md5('i' || i), 40) || '"}}' as identity,
            '{{"model": "' || repeat(md5('s' || i), 14) || '"}}' as spec,
            'trials/' || md5('d' || i) || '.parquet' as lake_file
        from range(cast(? // {_HEADS} as bigint)) as numbers(i)
    """,
    "answers": f"""
        insert into raw.answers by name select
            'large' as study, left(md5('t' || i), 16) as trial_id, md5('d' || i) as delivery_id,
            timestamp '2026-01-01' + to_seconds(i) as answered_at, null as previous_delivery_id,
            'answers/large--' || left(md5('t' || i), 16) || '.parquet' as lake_file
        from range(cast(? // {_HEADS} as bigint)) as numbers(i)
    """,
    "head_scores": f"""
        insert into raw.head_scores by name select
            md5('d' || i // {_HEADS}) as delivery_id, i // {N_HEADS} % {N_HEADS} as layer, i % {N_HEADS} as head,
            hash(i) % 1000003 / 1000003 * 0.9 as score, hash(i) % 1000003 / 1000003 * 0.9 - 0.05 as ci_low,
            hash(i) % 1000003 / 1000003 * 0.9 + 0.05 as ci_high, 50 as n_items, null as n_clusters,
            'head_scores/' || md5('d' || i // {_HEADS}) || '.parquet' as lake_file
        from range(cast(? // {_HEADS} as bigint) * {_HEADS}) as numbers(i)
    """,
}

QUESTIONS = {
    "five best heads of one trial": """
        select layer, head, score from mart.head_ranking where trial_id = left(md5('t3'), 16) and rank <= 5""",
    "best head of every trial of one model": """
        select promptset, probe, layer, head, score from mart.head_ranking where model = 'model-3' and rank = 1""",
    "mean score by layer of one promptset": """
        select layer, avg(score) from mart.head_ranking where promptset = 'promptset-3' group by layer""",
    "best head of every trial": """
        select model, promptset, probe, layer, head, score from mart.head_ranking where rank = 1""",
    "best head of every trial, asked of the scores": """
        select h.delivery_id, max(h.score) from stg.head_scores as h
        inner join stg.current_trials as t on h.delivery_id = t.delivery_id
        where not t.is_control group by h.delivery_id""",
    "mean score of each probe": "select probe, avg(score) from mart.head_ranking group by probe",
    "trials by status": "select status, count(*) from mart.trials group by status",
    "what moved": "select * from mart.drift where is_moved",
}


def fill_counts(n_scores: int) -> dict[str, int]:
    """How many rows each statement of FILL makes."""
    n_trials = n_scores // _HEADS
    return {"trials": n_trials, "answers": n_trials, "head_scores": n_trials * _HEADS}


def deliver(lake: Lake, number: int) -> None:
    """One trial of 1024 heads: its row, its answer, its scores, and its scores on each of 20 items."""
    draw, name = random.Random(number), hashlib.md5(str(number).encode()).hexdigest()
    scores = [{"layer": i // N_HEADS, "head": i % N_HEADS, "score": draw.random()} for i in range(_HEADS)]
    frame = pl.DataFrame(scores).with_columns(
        pl.lit(name).alias("delivery_id"),
        ci_low=pl.col("score"),
        ci_high=pl.col("score"),
        n_items=_ITEMS,
        n_clusters=None,
    )
    lake.deliver("head_scores", name, frame)
    items = frame.select("delivery_id", "layer", "head", item=pl.lit(list(range(_ITEMS)))).explode("item")
    lake.deliver("item_scores", name, items.with_columns(value=pl.Series([draw.random() for _ in range(len(items))])))
    lake.deliver("trials", name, pl.DataFrame([_trial(name, number)], infer_schema_length=None))
    lake.answer("large", name[:16], name)


def _trial(name: str, number: int) -> dict[str, object]:
    about = {"delivery_id": name, "trial_id": name[:16], "model": f"model-{number // N_PROMPTSETS}", "model_seed": 0}
    about |= {"promptset": f"promptset-{number % N_PROMPTSETS}", "promptset_seed": 0, "is_control": False, "step": None}
    about |= {"probe": "induction", "variant": "primary", "probe_seed": 0, "level": "head", "baseline": None}
    about |= {"unit": "fraction of attention", "low": 0.0, "high": 1.0, "status": "delivered", "error": None}
    about |= {"delivered_at": _NOON, "seconds": 1.5, "forwards": 64, "device": "cpu", "dtype": "float32", "code": name}
    return about | {"versions": "{}", "identity": f'{{"code": "{name * 40}"}}', "spec": f'{{"model": "{name * 14}"}}'}
