with
role_scores as (select * from mart.role_scores),

head_roles as (
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
)

select * from head_roles
