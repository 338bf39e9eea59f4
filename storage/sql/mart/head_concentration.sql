with
trials as (select * from stg.current_trials),

head_scores as (select * from stg.head_scores),

running as (
    select
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        t.probe,
        t.is_control,
        s.n_items,
        greatest(s.score, 0) as positive,
        sum(greatest(s.score, 0)) over (partition by s.delivery_id) as whole,
        sum(greatest(s.score, 0)) over (
            partition by s.delivery_id
            order by s.score desc, s.layer asc, s.head asc
            rows between unbounded preceding and current row
        ) as held
    from head_scores as s
    inner join trials as t on s.delivery_id = t.delivery_id
    where t.status = 'delivered' and t.step is null and s.score is not null
),

counted as (
    select
        r.model,
        r.model_seed,
        r.promptset,
        r.promptset_seed,
        r.variant,
        r.trial_id,
        r.probe,
        r.is_control,
        count(*) as n_heads,
        count(*) filter (where r.positive > 0) as n_positive,
        case when max(r.whole) > 0 then count(*) filter (where r.held < 0.5 * r.whole) + 1 end as n_half,
        max(r.n_items) as n_items
    from running as r
    group by all
),

head_concentration as (
    select
        c.model,
        c.model_seed,
        c.promptset,
        c.promptset_seed,
        c.variant,
        c.trial_id,
        'fraction of heads' as unit,
        c.probe,
        c.n_heads,
        c.n_positive,
        c.n_half,
        c.n_half / c.n_heads as concentration,
        c.n_items,
        c.is_control,
        c.n_items < 30 as is_descriptive
    from counted as c
)

select * from head_concentration
