select
    r.delivery_id,
    r.measure,
    r.ablation,
    r.level,
    nullif(r.value, 'nan'::double) as value,
    nullif(r.ci_low, 'nan'::double) as ci_low,
    nullif(r.ci_high, 'nan'::double) as ci_high,
    r.n_items,
    r.unit
from raw.circuit_measures as r
