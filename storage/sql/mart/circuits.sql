with
trials as (select * from stg.current_trials),

circuits as (select * from stg.circuits),

circuits_of_trials as (
    select
        t.model,
        t.model_seed,
        t.promptset,
        t.promptset_seed,
        t.variant,
        t.trial_id,
        s.unit,
        s.method,
        s.rule,
        s.ablation,
        s.level,
        s.n_edges_requested,
        s.n_edges,
        s.faithfulness,
        s.ci_low,
        s.ci_high,
        s.completeness,
        s.minimality,
        s.search,
        s.n_nodes,
        s.n_graph_edges,
        s.is_selected,
        s.completeness_low,
        s.completeness_high,
        s.incompleteness,
        s.control_mean,
        s.control_low,
        s.control_high,
        s.control_n_edges,
        s.n_draws,
        s.p_value,
        s.n_items,
        s.n_clusters,
        t.probe,
        t.is_control,
        s.n_items < 30 as is_descriptive
    from circuits as s
    inner join trials as t on s.delivery_id = t.delivery_id
    where t.status = 'delivered' and t.step is null
)

select * from circuits_of_trials
