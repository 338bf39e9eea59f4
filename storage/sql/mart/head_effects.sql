with
trials as (select * from stg.current_trials),

head_effects as (select * from stg.head_effects),

head_effects_of_trials as (
    select
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        s.unit,
        s.intervention,
        s.layer,
        s.head,
        s.position_label,
        s.effect,
        s.ci_low,
        s.ci_high,
        s.n_items,
        t.probe,
        t.is_control,
        s.normalised_effect,
        s.normalised_low,
        s.normalised_high,
        s.n_clusters,
        s.n_items < 30 as is_descriptive
    from head_effects as s
    inner join trials as t on s.delivery_id = t.delivery_id
    where t.status = 'delivered' and t.step is null
)

select * from head_effects_of_trials
