import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from mibao.deid import parse_policy, parse_types
from mibao.deid.sklearn import Deidentifier
from mibao.errors import InputError

TABLE = pd.DataFrame(
    {
        "first_name": ["Ann", "Lin", None],
        "note": ["seen by Dr. Chen", "写信到 lin@example.com", ""],
        "age": [30, 41, 52],
        "paid": [1.5, float("nan"), 2.0],
        "phone": [13800138000, 13900139000, 13700137000],
    },
    index=[7, 8, 9],
)


def test_a_data_frame_comes_out_as_one_with_its_columns_index_and_numbers() -> None:
    before = TABLE.copy()
    out = Deidentifier().fit(TABLE).transform(TABLE)
    assert [*out.columns] == [*TABLE.columns]
    assert [*out.index] == [7, 8, 9]
    assert out["first_name"].tolist()[:2] == ["<PERSON>", "<PERSON>"]
    assert out["note"].tolist() == ["seen by Dr. <PERSON>", "写信到 <EMAIL_ADDRESS>", ""]
    assert out["age"].tolist() == [30, 41, 52]
    assert out["paid"].tolist()[::2] == [1.5, 2.0]
    assert out["phone"].tolist() == ["<PHONE_NUMBER>"] * 3
    pd.testing.assert_frame_equal(TABLE, before)


def test_parameters_are_kept_cloned_and_set_and_a_fitted_one_is_pickled() -> None:
    step = Deidentifier("pseudonyms", key=bytes(32), scope="s")
    assert clone(step).get_params() == {"policy": "pseudonyms", "key": bytes(32), "scope": "s", "types": None}
    assert step.set_params(scope="t") is step
    fitted = step.fit(TABLE)
    again = pickle.loads(pickle.dumps(fitted))  # noqa: S301
    pd.testing.assert_frame_equal(again.transform(TABLE), fitted.transform(TABLE))
    pd.testing.assert_frame_equal(fitted.fit(TABLE).transform(TABLE), Deidentifier(
        "pseudonyms", key=bytes(32), scope="t").fit_transform(TABLE))  # fmt: skip
    assert fitted.get_feature_names_out().tolist() == [*TABLE.columns]
    assert fitted.n_features_in_ == 5
    assert fitted.feature_names_in_.tolist() == [*TABLE.columns]


def test_texts_arrays_and_series_keep_their_shape() -> None:
    texts = ["a@b.co wrote", "患者林晓雨"]
    step = Deidentifier().fit(texts)
    assert step.transform(texts).tolist() == ["<EMAIL_ADDRESS> wrote", "患者<PERSON>"]
    series = pd.Series(texts, index=[4, 5], name="t")
    out = Deidentifier().fit_transform(series)
    assert ([*out.index], out.name, out.tolist()[0]) == ([4, 5], "t", "<EMAIL_ADDRESS> wrote")
    array = np.array([["a@b.co", 3], ["c@d.co", 4]], dtype=object)
    assert Deidentifier().fit_transform(array).tolist() == [["<EMAIL_ADDRESS>", 3], ["<EMAIL_ADDRESS>", 4]]


def test_it_is_a_step_of_a_pipeline() -> None:
    texts = ["pay a@b.co now"] * 4 + ["hello c@d.co friend"] * 4
    pipeline = make_pipeline(Deidentifier(), CountVectorizer(), LogisticRegression()).fit(texts, [1] * 4 + [0] * 4)
    assert pipeline.predict(["pay e@f.co now", "hello g@h.co friend"]).tolist() == [1, 0]
    assert not [word for word in pipeline[1].vocabulary_ if word in ("co", "b", "d")]


def test_a_policy_of_ones_own_and_types_of_ones_own_are_taken() -> None:
    policy = parse_policy('name = "p"\n[columns.age]\nhow = "redact"', source="p")
    types = parse_types('[[type]]\nname = "BADGE"\npattern = "HB[0-9]{4}"\nreplacement = "[b]"', source="t")
    out = Deidentifier(policy, types=types).fit_transform(pd.DataFrame({"age": [30], "note": ["wears HB1234"]}))
    assert out.iloc[0].tolist() == ["", "wears [b]"]


def test_what_was_not_fitted_or_does_not_fit_is_refused() -> None:
    with pytest.raises(NotFittedError):
        Deidentifier().transform(TABLE)
    with pytest.raises(InputError, match=r"^Deidentifier: expected the 5 columns that were fitted, got others$"):
        Deidentifier().fit(TABLE).transform(TABLE[["age"]])
    with pytest.raises(InputError, match=r"^policy: expected a file or one of "):
        Deidentifier("nope").fit(TABLE)
    with pytest.raises(InputError, match=r"^policy pseudonyms: expected a key"):
        Deidentifier("pseudonyms").fit(TABLE)
    with pytest.raises(InputError, match=r"^Deidentifier: expected a DataFrame, a Series, "):
        Deidentifier().fit("a text")
