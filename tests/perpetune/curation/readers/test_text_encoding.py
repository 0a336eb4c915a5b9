from __future__ import annotations

import io

import pytest

from perpetune.curation.readers.text_encoding import encoding_of
from perpetune.errors import PerpetuneError

SENTENCES = {
    "cp1252": ["Größe passt nicht", "L’écran est cassé", "¿Dónde está mi pedido?"],
    "cp1250": ["Chcę zwrócić łóżko żółte", "Gdzie są moje rzeczy"],
    "cp1251": ["Где мой заказ", "Хочу вернуть товар"],
    "cp1253": ["Πού είναι το δέμα μου", "Θέλω επιστροφή"],
    "cp932": ["配送はいつですか", "返品したいです"],
    "euc_jp": ["配送はいつですか", "返品したいです"],
    "gb18030": ["我的订单在哪里", "我想退货"],
    "cp949": ["주문이 어디에 있나요", "반품하고 싶어요"],
}


@pytest.mark.parametrize("encoding", SENTENCES)
def test_an_older_encoding_is_found_and_said(encoding: str) -> None:
    text = "input,output\n" + "".join(f"{sentence},returns\n" for sentence in SENTENCES[encoding])
    data = io.BytesIO(text.encode(encoding))

    found = encoding_of(data, None)

    assert data.read().decode(found.name) == text
    assert found.note is not None
    assert SENTENCES[encoding][0] in found.note
    assert "--encoding" in found.note


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_wide_encodings_are_found(encoding: str) -> None:
    data = io.BytesIO("input,output\nGröße,b\n".encode(encoding))

    assert data.read().decode(encoding_of(io.BytesIO(data.getvalue()), None).name).endswith("Größe,b\n")


@pytest.mark.parametrize(
    "data",
    [
        "Größe, 日本\n".encode(),
        b"a bad \xff byte\n",
        "Größe\n".encode() * 20 + b"Gr\xf6\xdfe\n",
        "日本".encode()[:-1],
        b"",
    ],
)
def test_damage_makes_no_other_encoding(data: bytes) -> None:
    assert encoding_of(io.BytesIO(data), None).name == "utf-8"


def test_the_user_decides() -> None:
    assert encoding_of(io.BytesIO("é".encode("cp1250")), "latin1").name == "iso8859-1"
    with pytest.raises(PerpetuneError, match="no encoding named 'latin99'"):
        encoding_of(io.BytesIO(b"a"), "latin99")
