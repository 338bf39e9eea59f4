with
trials as (select * from stg.current_trials),

curves as (select * from stg.curves),

curves_of_trials as (
    select
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        s.unit,
        t.probe,
        s.measure,
        s.x_name,
        s.x,
        s.value,
        s.ci_low,
        s.ci_high,
        s.n_items,
        t.is_control,
        s.n_clusters,
        s.n_items < 30 as is_descriptive
    from curves as s
    inner join trials as t on s.delivery_id = t.delivery_id
    where t.status = 'delivered' and t.step is null
)

select * from curves_of_trials
