with
trials as (select * from stg.trials),

answers as (select * from stg.answers),

current_trials as (select * from stg.current_trials),

asked as (
    select
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        t.unit,
        a.study,
        t.probe,
        t.probe_seed,
        t.status,
        t.error,
        a.answered_at,
        a.delivery_id,
        c.delivery_id is not null as is_current,
        t.is_control,
        t.step
    from answers as a
    inner join trials as t on a.delivery_id = t.delivery_id and a.trial_id = t.trial_id
    left join current_trials as c on a.delivery_id = c.delivery_id and a.trial_id = c.trial_id
)

select * from asked
