with
curves as (select * from mart.curves),

roles (number, role) as (
    values
    (1, 'name_mover'),
    (2, 'negative_mover'),
    (3, 'backup_mover'),
    (4, 's_inhibition'),
    (5, 'induction'),
    (6, 'duplicate_token'),
    (7, 'previous_token')
),

members as (
    select
        c.model,
        c.model_seed,
        c.promptset,
        c.promptset_seed,
        c.variant,
        c.trial_id,
        c.is_control,
        cast(c.x as bigint) as place,
        max(c.value) filter (where c.measure = 'role') as number,
        cast(max(c.value) filter (where c.measure = 'layer') as bigint) as layer,
        cast(max(c.value) filter (where c.measure = 'head') as bigint) as head,
        max(c.unit) filter (where c.measure = 'score') as unit,
        max(c.value) filter (where c.measure = 'score') as score,
        max(c.value) filter (where c.measure = 'least') as threshold,
        max(c.n_items) filter (where c.measure = 'score') as n_items,
        max(c.value) filter (where c.measure = 'minimality') as cost,
        max(c.ci_low) filter (where c.measure = 'minimality') as cost_low,
        max(c.ci_high) filter (where c.measure = 'minimality') as cost_high,
        max(c.n_items) filter (where c.measure = 'minimality') as n_tested
    from curves as c
    where
        c.probe = 'ioi_circuit'
        and c.x_name = 'rank'
        and c.measure in ('role', 'layer', 'head', 'score', 'least', 'minimality')
    group by
        c.model, c.model_seed, c.promptset, c.promptset_seed, c.variant, c.trial_id, c.is_control, c.x
),

ioi_heads as (
    select
        m.model,
        m.model_seed,
        m.promptset,
        m.promptset_seed,
        m.variant,
        m.trial_id,
        m.unit,
        r.role,
        m.layer,
        m.head,
        m.place,
        m.score,
        m.threshold,
        m.n_items,
        m.cost,
        m.cost_low,
        m.cost_high,
        m.n_tested,
        m.is_control,
        m.n_items < 30 as is_descriptive
    from members as m
    inner join roles as r on m.number = r.number
)

select * from ioi_heads
