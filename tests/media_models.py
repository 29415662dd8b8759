"""Models whose samples are videos and sounds, as a plugin: pictures that move, and tones."""

PLUGIN = '''
from dataclasses import fields

import torch

from diffexp import Media, gaussian, model
from diffexp.components.models.gaussian import GaussianModel


class Clips(GaussianModel):
    """Nine frames of 8 x 8 pixels, five a second; each is moved by a pixel against the one before."""

    media = Media("video", 5.0)
    picture_shape = (3, 8, 8)

    def decode(self, x):
        image = super().decode(x)
        return torch.stack([image.roll(frame, -1) for frame in range(9)], dim=1)


class Tones(GaussianModel):
    """Two channels of a quarter of a second."""

    media = Media("sound", 800.0)

    def decode(self, x):
        return x.float().clamp(-1, 1).flatten(1).reshape(len(x), 2, -1).repeat(1, 1, 4).cpu()


def _as(kind, runtime, shape):
    base = gaussian(runtime, shape=shape)
    return kind(**{field.name: getattr(base, field.name) for field in fields(base)})


@model
def clips(runtime):
    return _as(Clips, runtime, [3, 8, 8])


@model
def tones(runtime):
    return _as(Tones, runtime, [1, 10, 10])
'''
