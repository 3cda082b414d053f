"""What only PiSSA promises."""

import torch

from graftlab.methods import pissa
from graftlab.testing import rig


def test_it_starts_from_the_largest_singular_values(attach, encoder):
    model = attach("pissa", rank=4, targets=("query",)).model
    name = "bert.encoder.layer.0.attention.self.query"
    layer = model.get_submodule(f"base_model.model.{name}")
    original = rig.backbone(encoder).model.get_submodule(name).weight
    u, s, vh = torch.linalg.svd(original.double())
    principal = (u[:, :4] * s[:4]) @ vh[:4]
    started = layer.scaling["default"] * layer.lora_B.default.weight @ layer.lora_A.default.weight
    torch.testing.assert_close(started.double(), principal, rtol=1e-4, atol=1e-5)


def test_before_training_it_converts_to_no_change_at_all(attach):
    for _, (up, down) in pissa.deltas(attach("pissa").model):
        torch.testing.assert_close(
            up @ down, torch.zeros(len(up), down.shape[1]), rtol=0, atol=1e-6
        )


def test_as_lora_it_has_twice_the_rank_and_the_same_scale(attach):
    for rslora in (False, True):
        model = attach("pissa", rank=4, rslora=rslora).model
        config, weights = pissa.to_lora(model)
        scale = config["lora_alpha"] / (config["r"] ** 0.5 if rslora else config["r"])
        assert config["r"] == 8
        assert abs(scale - 16 / (2 if rslora else 4)) < 1e-9
        assert config["init_lora_weights"] is True
        assert all(w.shape[0] == 8 for n, w in weights.items() if n.endswith("lora_A.weight"))
