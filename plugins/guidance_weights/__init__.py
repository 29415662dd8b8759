"""Guidance with a weight that depends on the noise level, and a metric of its effect. A plugin that is a folder.

    python -m diffexp guidance=weighted guidance_scale=4 'metric=[cost,fid,accuracy]'
    python -m diffexp guidance=weighted guidance.shape=cosine guidance_scale=3 label=7
    python -m diffexp guidance=falling guidance_scale=3
    python -m diffexp experiment=guidance_weights

Its files are imported as one package, so that they can import each other (``from .weighted import weighted``). Its
``conf/`` is searched like the conf folder of diffexp: here for an experiment and a preset, ``guidance=falling``.
"""
