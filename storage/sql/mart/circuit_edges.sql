with
trials as (select * from stg.current_trials),

circuit_edges as (select * from stg.circuit_edges),

circuit_edges_of_trials as (
    select
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        s.unit,
        s.source,
        s.destination,
        s.score,
        s.exact_effect,
        s.least_requested,
        s.is_selected,
        s.n_items,
        t.probe,
        t.is_control,
        s.n_items < 30 as is_descriptive
    from circuit_edges as s
    inner join trials as t on s.delivery_id = t.delivery_id
    where t.status = 'delivered' and t.step is null
)

select * from circuit_edges_of_trials
