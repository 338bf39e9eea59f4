with
answers as (select * from stg.answers),

trials as (select * from stg.trials),

head_scores as (select * from stg.head_scores),

head_effects as (select * from stg.head_effects),

behavior as (select * from stg.behavior),

controls as (select * from stg.controls),

curves as (select * from stg.curves),

circuits as (select * from stg.circuits),

pairs as (
    select
        a.study,
        a.answered_at,
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        t.probe,
        t.is_control,
        t.step,
        t.delivery_id,
        t.identity,
        p.delivery_id as previous_delivery_id,
        p.delivered_at as previous_delivered_at,
        p.identity as previous_identity
    from answers as a
    inner join trials as t on a.delivery_id = t.delivery_id and a.trial_id = t.trial_id
    inner join trials as p on a.previous_delivery_id = p.delivery_id and a.trial_id = p.trial_id
    where t.status = 'delivered' and p.status = 'delivered'
),

part_names as (
    select
        q.study,
        q.trial_id,
        unnest(json_keys(q.identity)) as part
    from pairs as q
    union
    select
        q.study,
        q.trial_id,
        unnest(json_keys(q.previous_identity)) as part
    from pairs as q
),

changes as (
    select
        q.study,
        q.trial_id,
        string_agg(n.part, ', ' order by n.part) as changed
    from part_names as n
    inner join pairs as q on n.study = q.study and n.trial_id = q.trial_id
    where
        json_extract_string(q.identity, '$."' || n.part || '"')
        is distinct from json_extract_string(q.previous_identity, '$."' || n.part || '"')
    group by q.study, q.trial_id
),

quantities as (
    select
        s.delivery_id,
        'score' as measure,
        s.layer,
        s.head,
        null::varchar as position_label,
        null::bigint as k,
        s.score as value,
        s.ci_low,
        s.ci_high,
        s.unit
    from head_scores as s
    union all
    select
        e.delivery_id,
        e.intervention as measure,
        e.layer,
        e.head,
        e.position_label,
        null::bigint as k,
        e.effect as value,
        e.ci_low,
        e.ci_high,
        e.unit
    from head_effects as e
    union all
    select
        b.delivery_id,
        b.readout as measure,
        null::bigint as layer,
        null::bigint as head,
        null::varchar as position_label,
        null::bigint as k,
        b.value,
        b.ci_low,
        b.ci_high,
        b.unit
    from behavior as b
    union all
    select
        c.delivery_id,
        'top_k' as measure,
        null::bigint as layer,
        null::bigint as head,
        null::varchar as position_label,
        c.k,
        c.value,
        c.ci_low,
        c.ci_high,
        c.unit
    from controls as c
    union all
    select
        u.delivery_id,
        u.measure || ' at ' || u.x_name || ' ' || u.x::varchar as measure,
        null::bigint as layer,
        null::bigint as head,
        null::varchar as position_label,
        null::bigint as k,
        u.value,
        u.ci_low,
        u.ci_high,
        u.unit
    from curves as u
    union all
    select
        f.delivery_id,
        'faithfulness of ' || f.n_edges_requested::varchar || ' edges, ' || f.ablation as measure,
        null::bigint as layer,
        null::bigint as head,
        null::varchar as position_label,
        null::bigint as k,
        f.faithfulness as value,
        f.ci_low,
        f.ci_high,
        f.unit
    from circuits as f
),

compared as (
    select
        q.model,
        q.model_seed,
        q.promptset,
        q.promptset_seed,
        q.variant,
        q.trial_id,
        n.unit,
        q.study,
        q.probe,
        n.measure,
        n.layer,
        n.head,
        n.position_label,
        n.k,
        b.value as previous_value,
        b.ci_low as previous_low,
        b.ci_high as previous_high,
        n.value,
        n.ci_low,
        n.ci_high,
        n.value - b.value as difference,
        greatest(
            coalesce(n.ci_low, n.value) - coalesce(b.ci_high, b.value),
            coalesce(b.ci_low, b.value) - coalesce(n.ci_high, n.value),
            0
        ) as gap,
        0.0001 * greatest(abs(n.value), abs(b.value), 1) as rounding,
        q.answered_at,
        q.delivery_id,
        q.previous_delivery_id,
        q.previous_delivered_at,
        q.is_control,
        q.step
    from pairs as q
    inner join quantities as n on q.delivery_id = n.delivery_id
    inner join quantities as b
        on
            q.previous_delivery_id = b.delivery_id
            and n.measure = b.measure
            and n.layer is not distinct from b.layer
            and n.head is not distinct from b.head
            and n.position_label is not distinct from b.position_label
            and n.k is not distinct from b.k
),

drift as (
    select
        d.model,
        d.model_seed,
        d.promptset,
        d.promptset_seed,
        d.variant,
        d.trial_id,
        d.unit,
        d.study,
        d.probe,
        d.measure,
        d.layer,
        d.head,
        d.position_label,
        d.k,
        d.previous_value,
        d.previous_low,
        d.previous_high,
        d.value,
        d.ci_low,
        d.ci_high,
        d.difference,
        case
            when d.difference is null then (d.value is null) != (d.previous_value is null)
            else d.gap > d.rounding
        end as is_moved,
        case when d.difference is not null then d.gap end as gap,
        c.changed,
        d.answered_at,
        d.delivery_id,
        d.previous_delivery_id,
        d.previous_delivered_at,
        d.is_control,
        d.step
    from compared as d
    left join changes as c on d.study = c.study and d.trial_id = c.trial_id
)

select * from drift
