select
    r.delivery_id,
    r.item,
    r.condition,
    nullif(r.value, 'nan'::double) as value
from raw.item_conditions as r
