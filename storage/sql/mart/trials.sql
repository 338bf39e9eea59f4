with
trials as (select * from stg.current_trials),

recordings as (select * from stg.recordings),

recorded as (
    select
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        t.unit,
        t.study,
        t.probe,
        t.probe_seed,
        t.status,
        t.error,
        t.delivered_at,
        t.seconds,
        t.forwards,
        t.device,
        t.dtype,
        t.code,
        t.versions,
        r.mlflow_run_id,
        t.delivery_id,
        t.level,
        t.is_control,
        t.low,
        t.high,
        t.studies,
        t.step,
        t.baseline
    from trials as t
    left join recordings as r
        on
            t.study = r.study
            and t.model = r.model
            and t.model_seed is not distinct from r.model_seed
            and t.promptset = r.promptset
            and t.promptset_seed is not distinct from r.promptset_seed
)

select * from recorded
