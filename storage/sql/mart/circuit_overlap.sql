with
circuit_overlap as (select * from stg.circuit_overlap),

both_ways as (
    select
        a.model,
        a.model_seed,
        a.promptset,
        a.promptset_seed,
        a.variant,
        a.comparison_id,
        a.unit,
        a.level,
        a.n_a,
        a.n_b,
        a.n_shared,
        a.jaccard,
        a.p_value,
        a.ceiling,
        a.other_promptset,
        a.other_promptset_seed,
        a.step,
        a.other_step,
        a.selection,
        a.n_universe,
        a.coefficient,
        a.recall_a,
        a.recall_b,
        a.control,
        a.score_cosine,
        a.own_faithfulness,
        a.cross_faithfulness,
        a.cross_low,
        a.cross_high,
        a.dissociation,
        a.dissociation_low,
        a.dissociation_high,
        a.dissociation_low > 0 and b.dissociation_low > 0 as is_double_dissociation,
        a.n_items,
        a.study,
        a.probe,
        a.trial_id,
        a.other_trial_id,
        a.n_items < 30 as is_descriptive
    from circuit_overlap as a
    left join circuit_overlap as b
        on
            a.study = b.study
            and a.trial_id = b.other_trial_id
            and a.other_trial_id = b.trial_id
            and a.selection = b.selection
            and a.level = b.level
)

select * from both_ways
