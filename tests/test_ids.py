"""Public ids."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as some

from app import ids
from app.ids import Prefix


@given(some.uuids(), some.sampled_from(Prefix))
def test_an_id_survives_the_way_out_and_back(value: UUID, prefix: Prefix) -> None:
    assert ids.decode(prefix, ids.encode(prefix, value)) == value


@given(some.uuids(), some.uuids())
def test_ids_sort_as_their_uuids_do(one: UUID, other: UUID) -> None:
    as_text = ids.encode(Prefix.JOB, one) < ids.encode(Prefix.JOB, other)
    assert as_text == (one.int < other.int)


@given(some.text(max_size=40))
def test_no_text_makes_decoding_fail_and_only_the_canonical_form_decodes(text: str) -> None:
    value = ids.decode(Prefix.JOB, text)
    assert value is None or ids.encode(Prefix.JOB, value) == text


# From the TypeID specification's valid.yml.
@pytest.mark.parametrize(
    ("suffix", "uuid"),
    [
        ("00000000000000000000000000", "00000000-0000-0000-0000-000000000000"),
        ("00000000000000000000000001", "00000000-0000-0000-0000-000000000001"),
        ("0000000000000000000000000g", "00000000-0000-0000-0000-000000000010"),
        ("7zzzzzzzzzzzzzzzzzzzzzzzzz", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
        ("01h455vb4pex5vsknk084sn02q", "01890a5d-ac96-774b-bcce-b302099a8057"),
    ],
)
def test_ids_are_typeids(suffix: str, uuid: str) -> None:
    assert ids.encode(Prefix.JOB, UUID(uuid)) == f"job_{suffix}"
    assert ids.decode(Prefix.JOB, f"job_{suffix}") == UUID(uuid)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "job_",
        "01h455vb4pex5vsknk084sn02q",
        "ast_01h455vb4pex5vsknk084sn02q",
        "JOB_01h455vb4pex5vsknk084sn02q",
        "job_01H455VB4PEX5VSKNK084SN02Q",
        "job_8zzzzzzzzzzzzzzzzzzzzzzzzz",
        "job_01h455vb4pex5vsknk084sn02",
        "job_01h455vb4pex5vsknk084sn02qq",
        "job_01h455vb4pex5vsknk084sn02u",
        "job__01h455vb4pex5vsknk084sn02q",
        "job_01h455vb4pex5vsknk084sn02q ",
        "job_٠1h455vb4pex5vsknk084sn02q",
    ],
)
def test_anything_else_is_not_an_id(text: str) -> None:
    assert ids.decode(Prefix.JOB, text) is None


def test_new_ids_are_uuid7_and_in_the_order_of_their_making() -> None:
    made = [ids.new_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert {value.version for value in made} == {7}
    assert {value.variant for value in made} == {"specified in RFC 4122"}
    milliseconds = [value.int >> 80 for value in made]
    assert milliseconds == sorted(milliseconds)
