with
role_scores as (select * from mart.role_scores),

role_counts as (
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
)

select * from role_counts
