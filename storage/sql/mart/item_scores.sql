with
trials as (select * from stg.current_trials),

item_scores as (select * from stg.item_scores),

item_scores_of_trials as (
    select
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        s.unit,
        t.probe,
        s.layer,
        s.head,
        s.item,
        s.value
    from item_scores as s
    inner join trials as t on s.delivery_id = t.delivery_id
    where t.status = 'delivered' and t.step is null
)

select * from item_scores_of_trials
