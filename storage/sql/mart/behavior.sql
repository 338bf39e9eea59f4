with
trials as (select * from stg.current_trials),

behavior as (select * from stg.behavior),

behavior_of_trials as (
    select
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        s.unit,
        s.readout,
        case when s.is_accuracy then s.value end as accuracy,
        s.ci_low,
        s.ci_high,
        s.chance,
        s.n_items,
        s.value,
        t.probe,
        t.is_control,
        s.n_clusters,
        s.n_items < 30 as is_descriptive
    from behavior as s
    inner join trials as t on s.delivery_id = t.delivery_id
    where t.status = 'delivered' and t.step is null
)

select * from behavior_of_trials
