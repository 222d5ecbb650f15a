import dataclasses
import json

import pytest
from absl import flags

from pipeline import errors
from pipeline.dataset import dataset
from trainer import config


def _parse(*arguments):
    values = flags.FlagValues()
    config.define_flags(values)
    values(["task", *arguments])
    return config.Config.from_flags(values)


def test_flags_give_settings_and_defaults_agree():
    assert _parse() == config.Config()
    given = _parse(
        "--model=ffn",
        "--units=20",
        "--clip_norm=0.5",
        "--nocache",
        "--mixed_precision",
        "--target=irm",
        "--model_arg=a=1",
        "--model_arg=b=x",
    )
    assert given == config.Config(
        model="ffn",
        units=20,
        clip_norm=0.5,
        mixed_precision=True,
        target="irm",
        model_arg=("a=1", "b=x"),
    )


def test_the_old_name_of_model_arg_still_works(caplog):
    given = _parse("--network=a=1", "--model_arg=b=x")
    assert given.model_arg == ("b=x", "a=1")
    assert "--network is now --model_arg" in caplog.text
    stored = given.to_json()
    stored["network"] = stored.pop("model_arg")
    assert config.Config.from_json(stored) == given


def test_lists_of_numbers_and_of_files():
    given = _parse("--noise_snr_db=0,12.5", "--utterances_manifest=a", "--utterances_manifest=b")
    assert given.noise_snr_db == (0.0, 12.5)
    assert given.utterances_manifest == ("a", "b")
    assert config.Config.from_json(json.loads(json.dumps(given.to_json()))) == given
    for text in ("5", "1,2,3", "low,high", "9,3", "nan,nan", "0,inf"):
        with pytest.raises(flags.IllegalFlagValueError, match="--noise_snr_db takes two numbers"):
            _parse(f"--noise_snr_db={text}")


@pytest.mark.parametrize(
    "field",
    [f for f in dataclasses.fields(config.Config) if f.metadata["kind"] == "float"],
    ids=lambda f: f.name,
)
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_no_number_is_refused_though_absl_takes_it(field, value):
    with pytest.raises(flags.IllegalFlagValueError, match=field.name):
        _parse(f"--{field.name}={value}")


@pytest.mark.parametrize(
    "flag", ["--batch_size=0", "--epochs=-1", "--target=abc", "--dropout=1", "--frames=x"]
)
def test_flags_out_of_range_are_errors(flag):
    with pytest.raises(flags.IllegalFlagValueError, match=flag[2:].split("=")[0]):
        _parse(flag)


def test_json_and_back():
    settings = config.Config(units=7, model_arg=("a=1",), steps_per_epoch=5)
    assert config.Config.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    older = settings.to_json()
    del older["shuffle_buffer"]
    assert config.Config.from_json(older) == settings
    with pytest.raises(errors.UserError, match="'later'"):
        config.Config.from_json({**older, "later": 1})


def test_differences_are_those_that_change_the_model():
    before = config.Config(data_dir="/a")
    after = dataclasses.replace(before, data_dir="/b", epochs=99, cache=True, tensorboard=False)
    assert before.differences(after) == []
    after = dataclasses.replace(before, units=5, target="ibm")
    assert before.differences(after) == ["--units None → 5", "--target psm → ibm"]


def test_network_settings():
    settings = config.Config(
        layers=3, head="linear", model_arg=("width=5", "causal=true", "kind=x")
    )
    assert settings.network_settings() == {
        "num_layers": 3,
        "head": "linear",
        "width": 5,
        "causal": True,
        "kind": "x",
    }
    with pytest.raises(errors.UserError, match="--model_arg=width is not NAME=VALUE"):
        config.Config(model_arg=("width",)).network_settings()
    for name in ("name", "dtype", "num_outputs", "num_bins"):
        with pytest.raises(config.SettingsError, match=f"--model_arg={name}=7: "):
            config.Config(model_arg=(f"{name}=7",)).network_settings()


def _info(**changes):
    split = dataset.SplitInfo(1, 2, 1.0, 126, ())
    values = {
        "schema_version": 1,
        "config": {"sample_rate": 8000, "num_sources": 2, "masks": ["irm", "psm"]},
        "splits": {"train": split, "valid": split},
        "mean": -3.0,
        "deviation": 0.8,
        "active_level_db": -25.0,
        "plan_digest": "",
        "versions": {},
        "created": "",
    }
    return dataset.DatasetInfo(**{**values, **changes})


def test_check_holds_the_settings_against_the_dataset():
    config.Config().check(_info())
    with pytest.raises(errors.UserError, match=r"has no train split \(only test\)"):
        config.Config().check(_info(splits={"test": None}, mean=None))
    with pytest.raises(errors.UserError, match="stores the masks irm, psm, not ibm"):
        config.Config(target="ibm", loss="mask").check(_info())
    # What the network learns by default is not known yet: it may need no masks.
    config.Config(target="ibm").check(_info())
    three = _info(config={"sample_rate": 8000, "num_sources": 3, "masks": ["psm"]})
    with pytest.raises(errors.UserError, match="fixed is for two voices"):
        config.Config(assignment="fixed").check(three)
    with pytest.raises(errors.UserError, match="fixed is for --loss=mask, not sisdr"):
        config.Config(assignment="fixed", loss="sisdr").check(_info())
    for one_mask in ({"head": "softmax"}, {"model_arg": ("head=softmax",)}):
        with pytest.raises(errors.UserError, match="would always make 1"):
            config.Config(assignment="fixed", **one_mask).check(_info())


def test_masks_need_not_be_stored_where_they_are_made_on_the_device():
    without = _info(config={"sample_rate": 8000, "num_sources": 2, "masks": []})
    config.Config(mixing="dynamic").check(without)
    config.Config(mixing="static", loss="sisdr").check(without)
    with pytest.raises(errors.UserError, match=r"stores the masks \(none\), not psm"):
        config.Config(mixing="static", loss="mask").check(without)


_STATIC, _DYNAMIC = {"mixing": "static"}, {"mixing": "dynamic"}
# What changes something only beside other settings: some where it does, some where it does not.
_BESIDE_OTHERS = [
    ("utterances_manifest", ("a",), _DYNAMIC, _STATIC, "--mixing=dynamic; static mixtures are as"),
    ("max_snr_db", 3.0, _DYNAMIC, _STATIC, "--mixing=dynamic"),
    ("speed", 0.1, _DYNAMIC, _STATIC, "--mixing=dynamic"),
    ("noise", 0.5, _DYNAMIC, _STATIC, "--mixing=dynamic"),
    ("rooms", 0.5, _DYNAMIC, _STATIC, "--mixing=dynamic"),
    ("sparse", 0.5, _DYNAMIC, _STATIC, "--mixing=dynamic"),
    ("workers", 4, _DYNAMIC, _STATIC, "--mixing=dynamic"),
    ("noise_snr_db", (0.0, 9.0), {**_DYNAMIC, "noise": 0.5}, _STATIC, "--mixing=dynamic"),
    ("noise_snr_db", (0.0, 9.0), {**_DYNAMIC, "noise": 0.5}, _DYNAMIC, "--noise above 0"),
    ("noise_dir", "/n", {**_DYNAMIC, "noise": 0.5}, _DYNAMIC, "--noise above 0"),
    ("room_dir", "/r", {**_DYNAMIC, "rooms": 0.5}, _DYNAMIC, "--rooms above 0"),
    ("cache", True, _STATIC, _DYNAMIC, "--mixing=static"),
    ("shuffle_buffer", 9, _STATIC, _DYNAMIC, "--mixing=static"),
    ("target", "irm", {}, {"loss": "sisdr"}, "losses on masks"),
    ("target", "irm", {"loss": "mask"}, {"loss": "snr"}, "losses on masks"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "some", "none", "message"), _BESIDE_OTHERS,
    ids=[f"{name}-{number}" for number, (name, *_) in enumerate(_BESIDE_OTHERS)],
)  # fmt: skip
def test_what_would_do_nothing_is_refused(name, value, some, none, message):
    config.Config(**{**some, name: value}).check(_info())
    idle = config.Config(**{**none, name: value})
    with pytest.raises(config.SettingsError, match=f"^--{name} is for {message}"):
        idle.check(_info())
    # A run that an older version began with it goes on; with another value it does not.
    idle.check(_info(), before=idle)
    with pytest.raises(config.SettingsError, match=f"^--{name} is for {message}"):
        idle.check(_info(), before=config.Config(**none))


def test_a_target_is_refused_where_the_network_learns_no_masks():
    settings = config.Config(target="irm", loss="clustering")
    settings.check(_info())
    with pytest.raises(config.SettingsError, match="--target is for losses on masks"):
        settings.check(_info(), learns_masks=False)
