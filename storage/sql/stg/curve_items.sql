select
    r.delivery_id,
    r.measure,
    r.x_name,
    r.x,
    r.item,
    nullif(r.value, 'nan'::double) as value,
    c.unit
from raw.curve_items as r
inner join raw.curves as c
    on r.delivery_id = c.delivery_id and r.measure = c.measure and r.x_name = c.x_name and r.x = c.x
