"""Guidance in a limited interval, and a metric to see what guidance does. A plugin that is a folder.

    python -m diffexp guidance=limited guidance_scale=4 'metric=[cost,fid,accuracy]'
    python -m diffexp guidance=limited guidance.low=200 guidance.high=800 guidance_scale=3 label=7
    python -m diffexp experiment=limited_guidance

Its files are imported as one package, so that they can import each other (``from .interval import limited``). What lies
in ``conf/`` is found as if it lay in the conf folder of diffexp: here an experiment and a preset, ``guidance=early``.

The experiment, on the embedded digits: guided or not by ``cfg``, ``limited`` or ``early``, accuracy goes from 0.97 at
scale 1 to 1.00 at scale 5; the FID of its 100 samples from 0.8 to 3.6, 3.1 and 0.8. Where guidance is best depends on
the data; for these digits, unlike the paper's photographs, it is at high noise.
"""
