with
role_scores as (select * from mart.role_scores),

trials as (select * from stg.current_trials),

curves as (select * from mart.curves),

by_threshold as (
    select
        s.model,
        s.model_seed,
        s.promptset,
        s.promptset_seed,
        s.variant,
        s.trial_id,
        'heads' as unit,
        s.role,
        s.probe,
        count(*) filter (where s.has_role) as n_heads,
        count(s.score) as n_measured,
        count(*) filter (where s.has_role) / nullif(count(s.score), 0) as share,
        any_value(s.threshold) as threshold,
        bool_or(s.is_descriptive) as is_descriptive
    from role_scores as s
    group by
        s.model, s.model_seed, s.promptset, s.promptset_seed, s.variant, s.trial_id, s.role, s.probe
    having count(s.score) > 0
),

classes (number, role, parameter) as (
    values
    (1, 'name_mover', 'least_effect'),
    (2, 'negative_mover', 'least_effect'),
    (3, 'backup_mover', 'least_effect'),
    (4, 's_inhibition', 'least_shift'),
    (5, 'induction', 'least_attention'),
    (6, 'duplicate_token', 'least_attention'),
    (7, 'previous_token', 'least_attention')
),

-- the model without any knock-out stands at its number of heads
sizes as (
    select
        c.trial_id,
        c.x as n_heads
    from curves as c
    where c.probe = 'ioi_circuit' and c.measure = 'whole'
),

by_circuit as (
    select
        c.model,
        c.model_seed,
        c.promptset,
        c.promptset_seed,
        c.variant,
        c.trial_id,
        'heads' as unit,
        k.role,
        c.probe,
        cast(c.value as bigint) as n_heads,
        cast(s.n_heads as bigint) as n_measured,
        c.value / s.n_heads as share,
        cast(json_extract_string(t.spec, '$.parameters.' || k.parameter) as double) as threshold,
        c.is_descriptive
    from curves as c
    inner join classes as k on c.x = k.number
    inner join sizes as s on c.trial_id = s.trial_id
    inner join trials as t on c.trial_id = t.trial_id
    where
        c.probe = 'ioi_circuit'
        and c.measure = 'class_size'
        and c.variant = 'primary'
        and not c.is_control
),

role_counts as (
    select * from by_threshold
    union all
    select * from by_circuit
)

select * from role_counts
