with
trials as (select * from stg.current_trials),

controls as (select * from stg.controls),

controls_of_trials as (
    select
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        s.unit,
        t.probe,
        s.k,
        s.value,
        s.control_mean,
        s.control_low,
        s.control_high,
        s.n_draws,
        s.n_distinct,
        s.p_value,
        s.ci_low,
        s.ci_high,
        s.n_items,
        t.is_control,
        s.n_clusters,
        s.n_items < 30 as is_descriptive
    from controls as s
    inner join trials as t on s.delivery_id = t.delivery_id
    where t.status = 'delivered' and t.step is null
)

select * from controls_of_trials
