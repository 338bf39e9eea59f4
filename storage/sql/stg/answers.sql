select
    r.study,
    r.trial_id,
    r.delivery_id,
    r.answered_at,
    r.previous_delivery_id,
    row_number() over (partition by r.trial_id order by r.answered_at desc, r.study asc) = 1 as is_last
from raw.answers as r
