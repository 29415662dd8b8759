"""Text-to-image models known from inside: text encoder, latent UNet, decoder. SD 1.x and 2.x, SDXL, Kandinsky 2.2."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import KandinskyV22Img2ImgPipeline, KandinskyV22InpaintPipeline
from torch import Tensor

from diffexp.components.models.base import Condition, Request
from diffexp.components.models.text_to_image.arguments import cycled
from diffexp.components.models.text_to_image.black_box import WITH_IMAGE, TextToImage
from diffexp.components.models.text_to_image.paused_call import Called, PausedCall, inputs_of_unet
from diffexp.components.pixels import from_model_range

Tensors = dict[str, Tensor]


@dataclass(eq=False)
class LatentModel(TextToImage):
    """Base of the three families. Samples are latents [channels, height / factor, width / factor]."""

    factor: int = 8
    """Pixels a latent, in each direction."""

    output_type = "latent"
    guides = False

    @property
    def media(self) -> None:
        """None: images."""

    def passes(self, request: Request) -> int:
        return 1

    @property
    def shape(self) -> tuple[int, ...]:
        channels = int(self.pipe.unet.config["in_channels"])
        _, height, width = self.picture_shape
        return (channels, height // self.factor, width // self.factor)

    def predict(self, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        if isinstance(condition, Called):  # of loop=pipeline
            return super().predict(u, t, condition)
        # The timestep stays float32 whatever the network's dtype: bfloat16 cannot tell 998 from 999.
        u = u.to(self.device, self.dtype, memory_format=torch.channels_last)
        added = {key: value for key, value in condition.positive.items() if key != "encoder_hidden_states"}
        out = self.pipe.unet(
            u,
            t.to(self.device, torch.float32),
            encoder_hidden_states=condition.positive.get("encoder_hidden_states"),
            added_cond_kwargs=added or None,
            return_dict=False,
        )[0]
        # A network that learned its variance has a second half of channels, which no solver here reads.
        out = out[:, : u.shape[1]]
        return out.to(torch.promote_types(out.dtype, torch.float32), memory_format=torch.contiguous_format)

    def samples(self, x: Tensor, call: PausedCall) -> Tensor:
        return call.finish(x).images.float().to(self.device)

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        """One at a time, so that memory does not grow with the batch."""
        return torch.cat([from_model_range(self._to_pixels(one)) for one in x.to(self.device).split(1)])

    @torch.no_grad()
    def encode(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Images [B, 3, height, width] in [0, 1] -> latents; randomness is from the samples' streams."""
        pixels = images.to(self.device) * 2 - 1
        return torch.cat([self._to_latents(one, g).float() for one, g in zip(pixels.split(1), generators, strict=True)])

    def _to_pixels(self, x: Tensor) -> Tensor:
        vae = self._vae()
        mean, std = _statistics(x := x.to(vae.dtype), vae.config)
        return vae.decode(x * std / vae.config["scaling_factor"] + mean, return_dict=False)[0]

    def _to_latents(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        vae = self._vae()
        z = vae.encode(pixels.to(vae.dtype)).latent_dist.sample(generator)
        mean, std = _statistics(z, vae.config)
        return (z - mean) * vae.config["scaling_factor"] / std

    def _vae(self) -> Any:
        vae = self.pipe.vae
        if vae.config.get("force_upcast") and vae.dtype == torch.float16:
            vae.to(torch.float32)  # SDXL's overflows in half precision
        return vae


@dataclass(eq=False)
class StableDiffusion(LatentModel):
    """SD 1.x and 2.x (Rombach et al. 2022) and SDXL (Podell et al. 2023): texts alone decide what the UNet is given."""

    _embedded: dict[tuple[str, str | None], tuple[Tensors, Tensors]] = field(default_factory=dict)

    def conditions(self, request: Request, indices: Sequence[int]) -> Condition:
        prompts = self.prompts(request, indices)
        negatives = cycled(request.negative_prompt, indices) or [None] * len(prompts)
        # Every text by itself and once, so that a sample's condition does not depend on its batch.
        pairs = [self._once(prompt, negative) for prompt, negative in zip(prompts, negatives)]
        positive, negative = ({key: torch.cat([one[key] for one in side]) for key in side[0]} for side in zip(*pairs))
        return Condition(positive, negative, prompts)

    def _once(self, prompt: str, negative: str | None) -> tuple[Tensors, Tensors]:
        if (prompt, negative) not in self._embedded:
            with torch.no_grad():
                self._embedded[prompt, negative] = self._embed(prompt, negative)
        return self._embedded[prompt, negative]

    def _embed(self, prompt: str, negative: str | None) -> tuple[Tensors, Tensors]:
        """The conditions of the UNet for a prompt and for a negative prompt, one row each, by the pipeline's call."""
        request = Request(negative_prompt=negative, steps=1, guidance={"guidance_scale": 2.0})
        texts = Condition({}, None, [prompt])
        inputs = inputs_of_unet(self.pipe, self.arguments_for(self.pipe, request, range(1), texts, [torch.Generator()]))
        tensors = {"encoder_hidden_states": inputs["encoder_hidden_states"], **(inputs["added_cond_kwargs"] or {})}
        positive, against = ({name: both.chunk(2)[side] for name, both in tensors.items()} for side in (1, 0))
        return positive, against


@dataclass(eq=False)
class Kandinsky22(LatentModel):
    """Kandinsky 2.2: a prior draws an image embedding for the text, a UNet draws latents for the embedding."""

    prior: Any = None
    prior_steps: int = 25
    prior_guidance_scale: float = 4.0
    idle = ()

    def conditions(self, request: Request, indices: Sequence[int]) -> Condition:
        prompts = self.prompts(request, indices)
        negatives = cycled(request.negative_prompt, indices)
        return Condition({}, {}, prompts, lambda generators: self._draw_embeddings(prompts, negatives, generators))

    def _draw_embeddings(
        self, prompts: list[str], negatives: list[str] | None, generators: Sequence[torch.Generator]
    ) -> Condition:
        with torch.no_grad():
            positive, negative = self.prior(
                prompts,
                negative_prompt=negatives,
                # With negative prompts the prior draws twice as many embeddings.
                generator=[*generators] * (1 if negatives is None else 2),
                num_inference_steps=self.prior_steps,
                guidance_scale=self.prior_guidance_scale,
                output_type="pt",
                return_dict=False,
            )
        return Condition({"image_embeds": positive}, {"image_embeds": negative.to(positive.dtype)}, prompts)

    def arguments(self, request: Request, indices: Sequence[int], condition: Condition) -> dict[str, Any]:
        assert condition.negative is not None
        negative = condition.negative["image_embeds"]
        return {"image_embeds": condition.positive["image_embeds"], "negative_image_embeds": negative}

    def task(self, name: str) -> Any:
        cls = KandinskyV22Img2ImgPipeline if name == WITH_IMAGE else KandinskyV22InpaintPipeline
        return cls(**self.pipe.components)

    def _to_pixels(self, x: Tensor) -> Tensor:
        movq = self.pipe.movq
        return movq.decode(x.to(movq.dtype), force_not_quantize=True)["sample"]

    def _to_latents(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        movq = self.pipe.movq
        return movq.encode(pixels.to(movq.dtype))["latents"]


def _statistics(like: Tensor, config: Any) -> tuple[Tensor, Tensor]:
    """(mean, standard deviation) of each channel of a VAE's latents, by its config."""
    given = config.get("latents_mean") or [0.0], config.get("latents_std") or [1.0]
    mean, std = (torch.tensor(one, device=like.device, dtype=like.dtype).view(1, -1, 1, 1) for one in given)
    return mean, std
