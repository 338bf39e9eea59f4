with
trials as (select * from stg.current_trials),

item_conditions as (select * from stg.item_conditions),

item_conditions_of_trials as (
    select
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        t.probe,
        s.item,
        s.condition,
        s.value
    from item_conditions as s
    inner join trials as t on s.delivery_id = t.delivery_id
    where t.status = 'delivered' and t.step is null
)

select * from item_conditions_of_trials
