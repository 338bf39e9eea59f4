with
curves as (select * from mart.curves),

trials as (select * from stg.current_trials),

named as (
    select
        c.model,
        c.model_seed,
        c.promptset,
        c.promptset_seed,
        c.variant,
        c.trial_id,
        c.is_control,
        cast(c.x as bigint) as place,
        cast(max(c.value) filter (where c.measure = 'layer') as bigint) as layer,
        cast(max(c.value) filter (where c.measure = 'head') as bigint) as head,
        max(c.value) filter (where c.measure = 'is_here') = 1 as is_here,
        max(c.value) filter (where c.measure = 'is_there') = 1 as is_there,
        max(c.unit) filter (where c.measure = 'effect_here') as unit,
        max(c.value) filter (where c.measure = 'effect_here') as effect_here,
        max(c.ci_low) filter (where c.measure = 'effect_here') as ci_low,
        max(c.ci_high) filter (where c.measure = 'effect_here') as ci_high,
        max(c.n_items) filter (where c.measure = 'effect_here') as n_items,
        max(c.value) filter (where c.measure = 'effect_there') as effect_there
    from curves as c
    where c.probe = 'head_reuse' and c.x_name = 'place'
    group by
        c.model, c.model_seed, c.promptset, c.promptset_seed, c.variant, c.trial_id, c.is_control, c.x
),

reused_heads as (
    select
        n.model,
        n.model_seed,
        n.promptset,
        n.promptset_seed,
        n.variant,
        n.trial_id,
        n.unit,
        json_extract_string(t.spec, '$.parameters.stage') as stage,
        json_extract_string(t.spec, '$.parameters.rank_on') as other_promptset,
        n.layer,
        n.head,
        n.is_here,
        n.is_there,
        n.is_here and n.is_there as is_shared,
        n.effect_here,
        n.ci_low,
        n.ci_high,
        n.n_items,
        n.effect_there,
        n.place,
        n.is_control,
        n.n_items < 30 as is_descriptive
    from named as n
    inner join trials as t on n.trial_id = t.trial_id
    where n.layer is not null
)

select * from reused_heads
