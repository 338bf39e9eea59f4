select
    r.study,
    r.model,
    r.model_seed,
    r.promptset,
    r.promptset_seed,
    r.mlflow_run_id,
    r.recorded_at
from raw.recordings as r
