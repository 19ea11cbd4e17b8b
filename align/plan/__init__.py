"""The plan: everything both sides are fed, made once, in numpy, from named sources and a seed."""

from align.plan.build import Plan, build, open_plan

__all__ = ["Plan", "build", "open_plan"]
