select
    r.delivery_id,
    nullif(r.split_half, 'nan'::double) as split_half,
    nullif(r.spearman_brown, 'nan'::double) as spearman_brown,
    r.top_k,
    nullif(r.top_k_jaccard, 'nan'::double) as top_k_jaccard,
    r.n_items
from raw.reliability as r
