# SPDX-License-Identifier: BSD-3-Clause
"""``qsub -v``: recorded pairs of option and Variable_List, with what the job then sees."""

from __future__ import annotations

import pytest
from mock_torque.variables import InvalidSyntaxError, OverrunError, expand, split_list

SET = {"TV_A": "hello"}
# option, environment, items of Variable_List, variables of the job; verbatim from 6.1.3
RECORDED = [
    ("TV_UNSET", {}, "name=", {"name": ""}),
    ("TV_UNSET,TV_B=1", {}, "TV_UNSET=,V_B=1", {"TV_UNSET": "", "V_B": "1"}),
    ("TV_B=1,TV_UNSET", {}, "TV_B=1,name=", {"TV_B": "1", "name": ""}),
    ("TV_U1,TV_U2,TV_U3", {}, "TV_U1=,V_U2=,name=", {"TV_U1": "", "V_U2": "", "name": ""}),
    ("FOO,BAR=1", {}, "FOO=,AR=1", {"FOO": "", "AR": "1"}),
    ("TV_A,TV_UNSET,TV_B", {"TV_A": "x,y z", "TV_B": "bee"}, r"TV_A=x\,y z,TV_UNSET=,name=",
     {"TV_A": "x,y z", "TV_UNSET": "", "name": ""}),
    ("TV_A", SET, "TV_A=hello", {"TV_A": "hello"}),
    ("TV_A,TV_B=1", SET, "TV_A=hello,TV_B=1", {"TV_A": "hello", "TV_B": "1"}),
    ("TV_A,TV_B=1", {"TV_A": ""}, "TV_A=,TV_B=1", {"TV_A": "", "TV_B": "1"}),
    ("TV_B=1,TV_A", {"TV_A": ""}, "TV_B=1,TV_A=", {"TV_B": "1", "TV_A": ""}),
    ("TV_A=,TV_B=1", SET, "TV_A=hello,TV_B=1", {"TV_A": "hello", "TV_B": "1"}),
    ("TV_A=,TV_B=1", {}, "TV_A=,TV_B=1", {"TV_A": "", "TV_B": "1"}),
    ("TV_B=1,TV_A=", {}, "TV_B=1,TV_A=", {"TV_B": "1", "TV_A": ""}),
    ("TV_A=b,c", {}, "TV_A=b,name=", {"TV_A": "b", "name": ""}),
    ("TV_A='b,c'", {}, r"TV_A=\'b,name=", {"TV_A": "'b", "name": ""}),
    ('TV_A="b,c"', {}, r"TV_A=\"b,name=", {"TV_A": '"b', "name": ""}),
    (r"TV_A=b\,c", {}, r"TV_A=b\,name=", {"TV_A": "b,name="}),
    ("TV_A,TV_B=1", {"TV_A": "b,c"}, r"TV_A=b\,c,TV_B=1", {"TV_A": "b,c", "TV_B": "1"}),
    ("TV_A,TV_B=1", {"TV_A": "b,c=d,e"}, r"TV_A=b\,c=d\,e,TV_B=1",
     {"TV_A": "b,c=d,e", "TV_B": "1"}),
    ("TV_A,TV_B=1", {"TV_A": r"b\,c"}, r"TV_A=b\\\,c,TV_B=1", {"TV_A": r"b\,c", "TV_B": "1"}),
    ("TV_A,TV_B=1", {"TV_A": 'say "hi"'}, r"TV_A=say \"hi\",TV_B=1",
     {"TV_A": 'say "hi"', "TV_B": "1"}),
    ("TV_A,TV_B=1", {"TV_A": "it's"}, r"TV_A=it\'s,TV_B=1", {"TV_A": "it's", "TV_B": "1"}),
    ("TV_A=two words,TV_B=1", {}, "TV_A=two words,TV_B=1", {"TV_A": "two words", "TV_B": "1"}),
    ("TV_A,TV_B=1", {"TV_A": "l1\nl2"}, "TV_A=l1\\\nl2,TV_B=1", {"TV_A": "l1\nl2", "TV_B": "1"}),
    ("TV_A=l1\nl2,TV_B=1", {}, "TV_A=l1,l2,TV_B=1", {"TV_A": "l1", "TV_B": "1"}),
    ("TV_A,TV_B=x=y", {"TV_A": "a=b"}, "TV_A=a=b,TV_B=x=y", {"TV_A": "a=b", "TV_B": "x=y"}),
    ("TV_A", {"TV_A": '{"k": [1,2]}'}, r"TV_A={\"k\": [1\,2]}", {"TV_A": '{"k": [1,2]}'}),
    ("TV_A", {"TV_A": r"back\slash"}, r"TV_A=back\\slash", {"TV_A": r"back\slash"}),
    ("TV_A", {"TV_A": "$HOME `id`"}, "TV_A=$HOME `id`", {"TV_A": "$HOME `id`"}),
    ("", {}, "name=", {"name": ""}),
    ("TV_B=1,", {}, "TV_B=1,name=", {"TV_B": "1", "name": ""}),
    ("TV_B=1, TV_C=2", {}, "TV_B=1,TV_C=2", {"TV_B": "1", "TV_C": "2"}),
]  # fmt: skip


@pytest.mark.parametrize(("option", "environment", "shown", "seen"), RECORDED)
def test_recorded_lists(
    option: str, environment: dict[str, str], shown: str, seen: dict[str, str]
) -> None:
    found = ",".join(expand(option, environment))
    assert found == shown
    assert split_list(found) == seen


@pytest.mark.parametrize("option", ["=x", ",TV_B=1", "TV_B=1,,TV_C=2", "TV_A=b,C,D=2"])
def test_invalid_syntax(option: str) -> None:
    with pytest.raises(InvalidSyntaxError):
        expand(option, {})


def test_a_long_literal_kills_qsub_unless_it_is_last_or_from_the_environment() -> None:
    long = "a" * 3000
    with pytest.raises(OverrunError):
        expand(f"TV_A={long},TV_B=1", {})
    assert expand(f"TV_A={long}", {}) == [f"TV_A={long}"]
    assert expand("TV_A,TV_B=1", {"TV_A": long}) == [f"TV_A={long}", "TV_B=1"]


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ("TV_U1,TV_U2,TV_U3", "TV_U1=,TV_U2=,TV_U3="),
        ("TV_A=b,c", "TV_A=b,c="),
        (r"TV_A=b\,c", r"TV_A=b\,c="),
        ("TV_A=b,C,D=2", "TV_A=b,C=,D=2"),
    ],
)
def test_the_old_version_only_empties_unset_names(option: str, shown: str) -> None:
    assert ",".join(expand(option, {}, old=True)) == shown


def test_the_old_version_dislikes_an_empty_value() -> None:
    with pytest.raises(InvalidSyntaxError):
        expand("TV_A=,TV_B=1", {}, old=True)


def test_a_later_variable_wins() -> None:
    assert split_list("TV_A=over,TV_B=1,TV_A=x") == {"TV_A": "x", "TV_B": "1"}
