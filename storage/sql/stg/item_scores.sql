select
    r.delivery_id,
    r.layer,
    r.head,
    r.item,
    nullif(r.value, 'nan'::double) as value,
    t.unit
from raw.item_scores as r
inner join raw.trials as t on r.delivery_id = t.delivery_id
