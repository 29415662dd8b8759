"""Schedulers as tables of numbers: compile, execute, compare."""

from diffexp.plan.bind import Grid, Part, Recipe, bind, build_sampler
from diffexp.plan.compile import Direct, Sampler, compile_method, sample
from diffexp.plan.execute import execute
from diffexp.plan.method import Denoiser, Method, Spec, TrainingSpec
from diffexp.plan.plan import Clamp, Plan, Row
from diffexp.plan.tape import NotLinear

__all__ = [
    "Clamp",
    "Denoiser",
    "Direct",
    "Grid",
    "Method",
    "NotLinear",
    "Part",
    "Plan",
    "Recipe",
    "Row",
    "Sampler",
    "Spec",
    "TrainingSpec",
    "bind",
    "build_sampler",
    "compile_method",
    "execute",
    "sample",
]
