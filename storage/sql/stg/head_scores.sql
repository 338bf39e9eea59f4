select
    r.delivery_id,
    r.layer,
    r.head,
    nullif(r.score, 'nan'::double) as score,
    nullif(r.ci_low, 'nan'::double) as ci_low,
    nullif(r.ci_high, 'nan'::double) as ci_high,
    r.n_items,
    t.unit,
    r.n_clusters
from raw.head_scores as r
inner join raw.trials as t on r.delivery_id = t.delivery_id
