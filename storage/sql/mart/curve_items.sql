with
trials as (select * from stg.current_trials),

curve_items as (select * from stg.curve_items),

curve_items_of_trials as (
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
        s.item,
        s.value
    from curve_items as s
    inner join trials as t on s.delivery_id = t.delivery_id
    where t.status = 'delivered' and t.step is null
)

select * from curve_items_of_trials
