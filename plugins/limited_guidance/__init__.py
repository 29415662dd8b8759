"""Guidance in a limited interval, and a metric to see what guidance does. A plugin that is a folder.

    python -m diffexp guidance=limited guidance_scale=4 'metric=[cost,fid,accuracy]'
    python -m diffexp guidance=limited guidance.low=200 guidance.high=800 guidance_scale=3 label=7
    python -m diffexp experiment=limited_guidance

Its files are imported as one package, so that they can import each other (``from .interval import limited``). What lies
in ``conf/`` is found as if it lay in the conf folder of diffexp: here an experiment and a preset, ``guidance=early``.
"""
