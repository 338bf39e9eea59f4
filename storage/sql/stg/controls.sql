select
    r.delivery_id,
    r.k,
    nullif(r.value, 'nan'::double) as value,
    nullif(r.ci_low, 'nan'::double) as ci_low,
    nullif(r.ci_high, 'nan'::double) as ci_high,
    nullif(r.control_mean, 'nan'::double) as control_mean,
    nullif(r.control_low, 'nan'::double) as control_low,
    nullif(r.control_high, 'nan'::double) as control_high,
    r.n_draws,
    r.n_distinct,
    nullif(r.p_value, 'nan'::double) as p_value,
    r.n_items,
    t.unit,
    r.n_clusters
from raw.controls as r
inner join raw.trials as t on r.delivery_id = t.delivery_id
