"""A program in which norms at zero are kinks with pieces of their own."""

from __future__ import annotations

from dataclasses import replace

from clarke.kinks.cones import cone_rule, cone_touch
from clarke.steering.analysis import Analysis, Site
from clarke.steering.program import Program


def with_cones(program: Program) -> Program:
    """The same program with norms at zero as kinks; the program itself where there are none.

    AD's piece at them is 0, whatever roundings put in place of the zero.
    """
    analysis = program.analysis
    sites: dict[int, Site] = {}
    for position, site in analysis.sites.items():
        rule = cone_rule(site.rule, site.touch) if site.touch.count else None
        sites[position] = (
            site if rule is None else replace(site, rule=rule, touch=cone_touch(site.touch, rule))
        )
    if all(s is analysis.sites[p] for p, s in sites.items()):
        return program
    other = Analysis(analysis.trace, sites, analysis.unknown, analysis.count, analysis.recorded)
    return Program(other, program.variables, program.dtype, program.deadline)
