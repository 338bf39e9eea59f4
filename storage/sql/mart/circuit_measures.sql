with
trials as (select * from stg.current_trials),

circuit_measures as (select * from stg.circuit_measures),

circuit_measures_of_trials as (
    select
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        s.unit,
        s.measure,
        s.ablation,
        s.level,
        s.value,
        s.ci_low,
        s.ci_high,
        s.n_items,
        t.probe,
        t.is_control,
        s.n_items < 30 as is_descriptive
    from circuit_measures as s
    inner join trials as t on s.delivery_id = t.delivery_id
    where t.status = 'delivered' and t.step is null
)

select * from circuit_measures_of_trials
