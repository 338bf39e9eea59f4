select
    r.delivery_id,
    r.source,
    r.destination,
    nullif(r.score, 'nan'::double) as score,
    nullif(r.exact_effect, 'nan'::double) as exact_effect,
    r.least_requested,
    r.is_selected,
    r.n_items,
    'logits' as unit
from raw.circuit_edges as r
