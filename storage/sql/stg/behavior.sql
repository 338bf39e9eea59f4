select
    r.delivery_id,
    r.readout,
    nullif(r.value, 'nan'::double) as value,
    r.is_accuracy,
    nullif(r.ci_low, 'nan'::double) as ci_low,
    nullif(r.ci_high, 'nan'::double) as ci_high,
    nullif(r.chance, 'nan'::double) as chance,
    r.n_items,
    t.unit,
    r.n_clusters
from raw.behavior as r
inner join raw.trials as t on r.delivery_id = t.delivery_id
