"""A model of another family is refused by its name, with what is read and why it is not."""

import pytest
from real_configs import REFUSED

from converters.errors import CheckpointError
from converters.families import FAMILIES
from converters.hf_config import parse_config


@pytest.mark.parametrize("name", REFUSED)
def test_another_family_is_refused_by_its_name_and_with_the_reason(name):
    data, reason = REFUSED[name]
    with pytest.raises(CheckpointError) as error:
        parse_config(data, "here/config.json")
    message = str(error.value)
    assert message.startswith("here/config.json: ")
    assert "\n" not in message
    named = data.get("architectures") or [data.get("model_type", "None")]
    expected = [*named, *FAMILIES, reason]
    assert [word for word in expected if word not in message] == []
