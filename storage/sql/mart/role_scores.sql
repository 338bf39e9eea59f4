with
rules (role, probe, variant, threshold, takes_equal) as (
    values
    ('previous_token', 'previous_token', 'primary', 0.4, false),
    ('induction', 'induction', 'primary', 0.4, false),
    ('duplicate_token', 'duplicate_token', 'primary', 0.4, false),
    ('retrieval', 'retrieval_score', 'primary', 0.1, true),
    ('sink', 'first_token_sink', 'primary', 0.3, false),
    ('dormant', 'active_dormant', 'primary', 0.5, false),
    ('copy_suppression', 'suppression_score', 'primary', 0.5, false),
    ('copy_suppression', 'copy_suppression', 'primary', 0.5, false),
    ('name_mover', 'direct_logit_attribution', 'primary', 0.0, false)
),

scores as (
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
        h.probe,
        h.score,
        h.ci_low,
        h.ci_high,
        h.n_items
    from mart.head_ranking as h
    where not h.is_control
),

shares as (
    select
        e.model,
        e.model_seed,
        e.promptset,
        e.promptset_seed,
        e.variant,
        e.trial_id,
        'share of the effect of mean ablation' as unit,
        e.layer,
        e.head,
        e.intervention as probe,
        e.normalised_effect as score,
        e.normalised_low as ci_low,
        e.normalised_high as ci_high,
        e.n_items
    from mart.head_effects as e
    where e.intervention = 'copy_suppression' and e.position_label is null and not e.is_control
),

measured as (
    select * from scores
    union all
    select * from shares
),

-- a name mover writes the name and copies what it attends to: the first is the score, the second a condition
copying as (
    select
        s.model,
        s.model_seed,
        s.layer,
        s.head,
        max(s.score) as copying_top5
    from scores as s
    where s.probe = 'copying_top5' and s.variant in ('primary', 'effective')
    group by s.model, s.model_seed, s.layer, s.head
),

candidates as (
    select
        m.model,
        m.model_seed,
        m.promptset,
        m.promptset_seed,
        m.variant,
        m.trial_id,
        m.unit,
        m.layer,
        m.head,
        r.role,
        m.probe,
        m.score,
        m.ci_low,
        m.ci_high,
        m.n_items,
        cast(r.threshold as double) as threshold,
        c.copying_top5,
        case
            when r.role = 'name_mover' then m.ci_low > r.threshold and c.copying_top5 > 0.95
            when r.takes_equal then m.score >= r.threshold
            else m.score > r.threshold
        end as has_role
    from measured as m
    inner join rules as r on m.probe = r.probe and m.variant = r.variant
    left join copying as c
        on
            m.model = c.model
            and m.model_seed is not distinct from c.model_seed
            and m.layer = c.layer
            and m.head = c.head
    where r.role != 'name_mover' or (m.promptset = 'ioi' and c.copying_top5 is not null)
),

role_scores as (
    select
        c.model,
        c.model_seed,
        c.promptset,
        c.promptset_seed,
        c.variant,
        c.trial_id,
        c.unit,
        c.layer,
        c.head,
        c.role,
        c.has_role,
        c.probe,
        c.score,
        c.ci_low,
        c.ci_high,
        c.n_items,
        c.threshold,
        case when c.role = 'name_mover' then c.copying_top5 end as copying_top5,
        c.n_items < 30 as is_descriptive
    from candidates as c
)

select * from role_scores
