select
    r.training_id,
    r.model,
    r.model_seed,
    r.step,
    r.measure,
    nullif(r.value, 'nan'::double) as value,
    r.unit,
    nullif(r.ci_low, 'nan'::double) as ci_low,
    nullif(r.ci_high, 'nan'::double) as ci_high,
    r.n_items
from raw.training as r
