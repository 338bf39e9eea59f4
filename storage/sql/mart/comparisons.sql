with
comparisons as (select * from stg.comparisons),

claims as (
    select
        c.claim,
        c.expected,
        c.found,
        c.ci_low,
        c.ci_high,
        c.n,
        c.control,
        c.verdict,
        c.comparison_id,
        c.study,
        c.reason,
        c.level,
        c.margin,
        c.unit,
        c.difference,
        c.least_n,
        c.description,
        c.found_sql,
        c.control_sql
    from comparisons as c
)

select * from claims
