with
trials as (select * from stg.trials),

answers as (select * from stg.answers),

asked_by as (
    select
        a.trial_id,
        list(a.study order by a.study) as studies
    from answers as a
    group by a.trial_id
),

current_trials as (
    select
        t.delivery_id,
        t.trial_id,
        t.model,
        t.model_seed,
        t.step,
        t.promptset,
        t.promptset_seed,
        t.is_control,
        t.baseline,
        t.probe,
        t.variant,
        t.probe_seed,
        t.level,
        t.unit,
        t.low,
        t.high,
        t.status,
        t.error,
        t.delivered_at,
        t.seconds,
        t.forwards,
        t.device,
        t.dtype,
        t.code,
        t.versions,
        t.identity,
        t.spec,
        a.study,
        asked_by.studies
    from answers as a
    inner join trials as t on a.delivery_id = t.delivery_id and a.trial_id = t.trial_id
    inner join asked_by on a.trial_id = asked_by.trial_id
    where a.is_last
)

select * from current_trials
