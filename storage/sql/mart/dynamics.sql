with
trials as (select * from stg.current_trials),

behavior as (select * from stg.behavior),

head_scores as (select * from stg.head_scores),

training as (select * from stg.training),

readouts as (
    select
        s.delivery_id,
        s.readout as measure,
        s.value,
        s.ci_low,
        s.ci_high,
        s.n_items
    from behavior as s
),

ordered_heads as (
    select
        s.delivery_id,
        t.probe,
        s.score,
        s.ci_low,
        s.ci_high,
        s.n_items,
        row_number() over (
            partition by s.delivery_id order by s.score desc nulls last, s.layer asc, s.head asc
        ) as place
    from head_scores as s
    inner join trials as t on s.delivery_id = t.delivery_id
    where t.step is not null
),

best_heads as (
    select
        o.delivery_id,
        o.probe as measure,
        o.score as value,
        o.ci_low,
        o.ci_high,
        o.n_items
    from ordered_heads as o
    where o.place = 1
),

mean_heads as (
    select
        o.delivery_id,
        o.probe || '_mean' as measure,
        avg(o.score) as value,
        null::double as ci_low,
        null::double as ci_high,
        max(o.n_items) as n_items
    from ordered_heads as o
    group by o.delivery_id, o.probe
),

measured as (
    select * from readouts
    union all
    select * from best_heads
    union all
    select * from mean_heads
),

of_trials as (
    select
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        t.unit,
        t.step,
        m.measure,
        m.value,
        m.ci_low,
        m.ci_high,
        m.n_items,
        t.probe,
        t.is_control,
        m.n_items < 30 as is_descriptive
    from measured as m
    inner join trials as t on m.delivery_id = t.delivery_id
    where t.status = 'delivered' and t.step is not null
),

of_training as (
    select
        r.model,
        r.model_seed,
        null::varchar as promptset,
        null::bigint as promptset_seed,
        'training' as variant,
        r.training_id as trial_id,
        r.unit,
        r.step,
        r.measure,
        r.value,
        r.ci_low,
        r.ci_high,
        r.n_items,
        null::varchar as probe,
        false as is_control,
        r.n_items < 30 as is_descriptive
    from training as r
),

dynamics as (
    select * from of_trials
    union all
    select * from of_training
)

select * from dynamics
