with
trials as (
    select
        c.model,
        c.model_seed,
        c.promptset,
        c.promptset_seed,
        c.variant,
        c.trial_id,
        c.unit,
        c.probe,
        c.baseline,
        c.delivery_id,
        coalesce(json_extract_string(c.spec, '$.promptset_spec.accuracy'), 'answer_accuracy') as accuracy_probe,
        json_extract_string(c.identity, '$.promptset') as prompts
    from stg.current_trials as c
    where c.status = 'delivered' and c.level = 'behavior' and c.step is null and not c.is_control
),

behavior as (select * from stg.behavior),

accuracies as (
    select
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        t.unit,
        t.probe,
        t.baseline,
        t.accuracy_probe,
        t.prompts,
        b.value,
        b.chance,
        b.n_items
    from trials as t
    inner join behavior as b on t.delivery_id = b.delivery_id and t.probe = b.readout
    where b.is_accuracy
),

-- baselines answered the very same prompts: their content, not the name of the promptset, is compared
baselines as (
    select
        a.prompts,
        a.probe,
        max(a.value) filter (where a.baseline = 'untrained') as untrained,
        max(a.value) filter (where a.baseline = 'bigram') as bigram
    from accuracies as a
    where a.variant = 'primary'
    group by a.prompts, a.probe
),

copies as (
    select
        a.prompts,
        max(a.value) filter (where a.variant in ('primary', 'first')) as copy_first,
        max(a.value) filter (where a.variant = 'last') as copy_last,
        max(a.value) filter (where a.variant = 'most_frequent') as copy_most_frequent
    from accuracies as a
    where a.probe = 'copy_baseline'
    group by a.prompts
),

learners as (
    select
        a.model,
        a.model_seed,
        a.promptset,
        a.promptset_seed,
        a.variant,
        a.trial_id,
        a.unit,
        a.probe as readout,
        a.value as accuracy,
        a.chance,
        a.n_items,
        a.prompts,
        3.841458820694124 / nullif(a.n_items, 0) as z_squared_over_n
    from accuracies as a
    where a.probe = a.accuracy_probe and a.variant = 'primary' and a.baseline is null
),

with_intervals as (
    select
        l.model,
        l.model_seed,
        l.promptset,
        l.promptset_seed,
        l.variant,
        l.trial_id,
        l.unit,
        l.readout,
        l.accuracy,
        l.chance,
        l.n_items,
        l.prompts,
        (l.accuracy + l.z_squared_over_n / 2) / (1 + l.z_squared_over_n) as centre,
        sqrt(l.z_squared_over_n * (l.accuracy * (1 - l.accuracy) + l.z_squared_over_n / 4))
        / (1 + l.z_squared_over_n) as half_width
    from learners as l
),

compared as (
    select
        w.model,
        w.model_seed,
        w.promptset,
        w.promptset_seed,
        w.variant,
        w.trial_id,
        w.unit,
        w.readout,
        w.accuracy,
        greatest(0, w.centre - w.half_width) as ci_low,
        least(1, w.centre + w.half_width) as ci_high,
        w.chance,
        w.n_items,
        b.untrained,
        b.bigram,
        c.copy_first,
        c.copy_last,
        c.copy_most_frequent,
        greatest(b.untrained, b.bigram, c.copy_first, c.copy_last, c.copy_most_frequent) as best_baseline,
        b.untrained is null
        or b.bigram is null
        or (
            w.readout != 'copy_accuracy'
            and (c.copy_first is null or c.copy_last is null or c.copy_most_frequent is null)
        ) as lacks_baselines
    from with_intervals as w
    left join baselines as b on w.prompts = b.prompts and w.readout = b.probe
    left join copies as c on w.prompts = c.prompts
),

behavior_table as (
    select
        c.model,
        c.model_seed,
        c.promptset,
        c.promptset_seed,
        c.variant,
        c.trial_id,
        c.unit,
        c.readout,
        c.accuracy,
        c.ci_low,
        c.ci_high,
        c.chance,
        c.n_items,
        c.untrained,
        c.bigram,
        c.copy_first,
        c.copy_last,
        c.copy_most_frequent,
        c.best_baseline,
        case
            when c.ci_low <= 0.9 or c.best_baseline > c.chance + 0.1 then false
            when c.lacks_baselines then null
            else c.best_baseline <= c.chance + 0.1
        end as is_learnt,
        c.n_items < 30 as is_descriptive
    from compared as c
)

select * from behavior_table
