with
trials as (select * from stg.current_trials),

reliability as (select * from stg.reliability),

reliability_of_trials as (
    select
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        'rank correlation' as unit,
        t.probe,
        s.split_half,
        s.spearman_brown,
        s.top_k_jaccard,
        s.top_k,
        s.n_items,
        t.is_control,
        s.n_items < 30 as is_descriptive
    from reliability as s
    inner join trials as t on s.delivery_id = t.delivery_id
    where t.status = 'delivered' and t.step is null
)

select * from reliability_of_trials
