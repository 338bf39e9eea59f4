with
role_scores as (select * from mart.role_scores),

ioi_heads as (select * from mart.ioi_heads),

by_threshold as (
    select
        s.model,
        s.model_seed,
        s.promptset,
        s.promptset_seed,
        s.variant,
        s.trial_id,
        s.unit,
        s.layer,
        s.head,
        s.role,
        format('{} {:.3g}', s.probe, s.score)
        || coalesce(format(' [{:.3g}, {:.3g}]', s.ci_low, s.ci_high), '')
        || coalesce(format(', n {}', s.n_items), '')
        || coalesce(format(', copying_top5 {:.3g}', s.copying_top5), '') as evidence,
        s.probe,
        s.score,
        s.ci_low,
        s.ci_high,
        s.n_items,
        s.threshold,
        s.is_descriptive
    from role_scores as s
    where s.has_role
),

by_circuit as (
    select
        h.model,
        h.model_seed,
        h.promptset,
        h.promptset_seed,
        h.variant,
        h.trial_id,
        h.unit,
        h.layer,
        h.head,
        h.role,
        format('ioi_circuit {:.3g}, n {}', h.score, h.n_items) as evidence,
        'ioi_circuit' as probe,
        h.score,
        cast(null as double) as ci_low,
        cast(null as double) as ci_high,
        h.n_items,
        h.threshold,
        h.is_descriptive
    from ioi_heads as h
    where h.variant = 'primary' and not h.is_control
),

head_roles as (
    select * from by_threshold
    union all
    select * from by_circuit
)

select * from head_roles
