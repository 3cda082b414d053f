"""A module as its kind's Protocol: what it leaves out is there, what it lacks or has from of old is named."""

from types import ModuleType

import pytest

from graftlab import registry
from graftlab.config import Section
from graftlab.contracts import Excused, Method, Promises
from graftlab.contracts.modules import provided
from graftlab.errors import ConfigError, ModelError


def module(**more):
    made = ModuleType("somewhere.mine")
    own = {"Config": Section, "attach": lambda *_: 1, "save": lambda *_: 2, "load": lambda *_: 3}
    vars(made).update({**own, **more})
    return made


def test_what_a_module_leaves_out_is_what_the_protocol_says():
    method = provided(Method, module())
    assert method.attach(None, None, None) == 1
    assert Promises() == method.PROMISES
    assert method.PROMISES.excuses() == {}
    assert method.check(Section(), "encoder", None, False) == []
    assert method.planned(section := Section()) is section
    assert (method.to_lora, method.LAYER, method.REGISTERS) == (None, None, None)
    assert method.on_quantized(Section(), 4) == Promises().quantized.reason


@pytest.mark.parametrize("name", ["attach", "Config"])
def test_what_has_no_default_is_named_where_it_lacks(name):
    made = module()
    delattr(made, name)
    with pytest.raises(ConfigError) as error:
        provided(Method, made)
    assert f"lacks {name}:" in str(error.value)
    assert "somewhere.mine" in str(error.value)


@pytest.mark.parametrize("old", sorted(Method.RETIRED))
def test_what_0_1_read_is_refused_with_what_replaces_it(old):
    with pytest.raises(ConfigError) as error:
        provided(Method, module(**{old: True}))
    assert old in str(error.value)
    assert "PROMISES" in str(error.value) or "LAYER" in str(error.value)


def test_what_is_excused_is_false_and_is_refused_with_its_reason():
    excused = Promises(turns_off=Excused("all has moved"), mergeable=Excused("it is none"))
    method = provided(Method, module(PROMISES=excused))
    assert excused.excuses() == {"turns_off": "all has moved", "mergeable": "it is none"}
    assert not excused.mergeable
    for call in (method.off, method.merge):
        with pytest.raises(ModelError) as error:
            call(None)
        assert any(why in str(error.value) for why in excused.excuses().values())


@pytest.mark.parametrize(
    ("kind", "model_type", "reason"),
    [("vision", "vit", "no words"), ("encoder", "albert", "no cache"), ("encoder", "bert", None)],
)
def test_a_backbone_that_does_not_fit_has_its_reason(kind, model_type, reason):
    promises = Promises(
        not_backbones={"vision": "no words"}, not_architectures={"albert": "no cache"}
    )
    assert promises.misfit(kind, model_type) == reason


def test_the_registry_gives_each_kind_as_its_protocol():
    for kind, contract in registry.CONTRACTS.items():
        for name in registry.names(kind):
            assert contract in type(registry.find(kind, name)).__mro__, (kind, name)
