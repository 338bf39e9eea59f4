select
    r.delivery_id,
    r.measure,
    r.x_name,
    r.x,
    nullif(r.value, 'nan'::double) as value,
    nullif(r.ci_low, 'nan'::double) as ci_low,
    nullif(r.ci_high, 'nan'::double) as ci_high,
    r.n_items,
    r.unit,
    r.n_clusters
from raw.curves as r
