with
trials as (select * from stg.current_trials),

head_scores as (select * from stg.head_scores),

ordered as (
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
        s.score,
        s.ci_low,
        s.ci_high,
        s.n_items,
        t.is_control,
        s.n_clusters,
        row_number() over (
            -- the trial alone is the partition; the rest lets a filter on it reach the scores before they are ordered
            partition by t.trial_id, t.model, t.promptset, t.probe
            order by s.score desc nulls last, s.layer asc, s.head asc
        ) as place
    from head_scores as s
    inner join trials as t on s.delivery_id = t.delivery_id
    where t.status = 'delivered' and t.step is null
),

ranked as (
    select
        o.model,
        o.model_seed,
        o.promptset,
        o.promptset_seed,
        o.variant,
        o.trial_id,
        o.unit,
        o.probe,
        o.layer,
        o.head,
        o.score,
        o.ci_low,
        o.ci_high,
        o.n_items,
        case when not o.is_control and o.score is not null then o.place end as rank,
        o.is_control,
        o.n_clusters,
        o.n_items < 30 as is_descriptive
    from ordered as o
)

select * from ranked
