with
phase_changes as (select * from stg.phase_changes),

curves as (
    select
        c.comparison_id,
        c.model,
        c.model_seed,
        c.promptset,
        c.promptset_seed,
        c.variant,
        c.measure,
        c.t50,
        c.t50_low,
        c.t50_high,
        c.width,
        c.rise,
        c.bic_gain,
        c.n_steps,
        c.verdict,
        c.unit,
        c.study,
        c.probe
    from phase_changes as c
)

select * from curves
