select
    r.delivery_id,
    r.intervention,
    r.layer,
    r.head,
    r.position_label,
    nullif(r.effect, 'nan'::double) as effect,
    nullif(r.ci_low, 'nan'::double) as ci_low,
    nullif(r.ci_high, 'nan'::double) as ci_high,
    nullif(r.normalised_effect, 'nan'::double) as normalised_effect,
    nullif(r.normalised_low, 'nan'::double) as normalised_low,
    nullif(r.normalised_high, 'nan'::double) as normalised_high,
    r.n_items,
    t.unit,
    r.n_clusters
from raw.head_effects as r
inner join raw.trials as t on r.delivery_id = t.delivery_id
