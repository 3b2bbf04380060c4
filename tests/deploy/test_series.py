"""Which series goes into which channel."""

import json
from types import SimpleNamespace

import pytest

from dcd_ext.errors import UserError
from deploy.dicom.bundle import read_channels, read_labels, read_origin
from deploy.dicom.series import channel_patterns, choose_series
from tests.conftest import BUNDLES, ROOT

CHANNELS = ["t1n", "t1c", "t2w", "t2f"]
DEFAULTS = json.loads((ROOT / "deploy" / "dicom" / "brats24_series.json").read_text("utf-8"))


def study(*descriptions):
    return [SimpleNamespace(SeriesDescription=text) for text in descriptions]


@pytest.mark.parametrize(
    "descriptions",
    [
        ("T1pre_reg ", "T1post", "T2_reg", "FLAIR_reg "),
        ("t1_mprage_sag", "t1_mprage_sag KM +C", "t2_tse_tra", "t2_flair_tra"),
        ("AX T1", "AX T1 POST GAD", "AX T2 FSE", "AX FLAIR"),
        ("T1n", "T1c", "T2w", "T2f"),
        ("T1 SE pre contrast", "T1CE", "T2 TSE", "T2 FLAIR dark fluid"),
        ("T1_COR", "T1_COR_contrast", "t2_blade", "FLAIR_COR"),
        ("T1w_pre_contrast", "T1c_reg", "T2w", "T2f_reg"),
    ],
)
def test_usual_names_find_their_channels_whatever_their_order(descriptions):
    series = study(*descriptions)
    chosen = choose_series(channel_patterns(CHANNELS, DEFAULTS, []), series[::-1])
    assert list(chosen) == CHANNELS and list(chosen.values()) == series


def test_a_missing_series_is_named_with_what_there_is():
    series = study("T1pre_reg", "T1post", "T2_reg")
    message = r"series for t2f is missing – channel t2f, .*found 'T1pre_reg', 'T1post', 'T2_reg' – name the series"
    with pytest.raises(UserError, match=message):
        choose_series(channel_patterns(CHANNELS, DEFAULTS, []), series)


def test_two_candidates_are_not_guessed_between():
    with pytest.raises(UserError, match="several series for t1c – .*found 'T1post', 'T1post_2'"):
        choose_series({"t1c": DEFAULTS["t1c"]}, study("T1post", "T1post_2"))
    with pytest.raises(UserError, match="one series for two channels – a and b – expected two series, found 'T1'"):
        choose_series({"a": "T1", "b": "T1"}, study("T1"))


def test_an_option_comes_before_the_default():
    patterns = channel_patterns(CHANNELS, DEFAULTS, ["t2f=^DARK FLUID$"])
    series = study("t1", "t1c", "t2", "dark fluid")
    assert choose_series(patterns, series)["t2f"] is series[3]
    assert list(channel_patterns(["T1"], {}, ["T1=a=b"]).values()) == ["a=b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["flair=x"], "unknown channel – --series flair=x – expected t1n=REGEX or t1c=REGEX"),
        (["t1n"], "unknown channel – --series t1n"),
        (["t1n=("], "no regular expression – channel t1n"),
    ],
)
def test_wrong_options_are_user_errors(options, message):
    with pytest.raises(UserError, match=message):
        channel_patterns(CHANNELS, DEFAULTS, options)


def test_names_come_from_the_metadata(tmp_path):
    assert read_channels(BUNDLES / "brats24_segmentation_student") == CHANNELS
    assert read_labels(BUNDLES / "brats24_segmentation_student") == ["NETC", "SNFH", "ET", "RC"]
    assert read_labels(BUNDLES / "hippocampus_segmentation_teacher") == ["Anterior", "Posterior"]
    with pytest.raises(UserError, match="no bundle – .*metadata.json – expected inputs.image.channel_def, found File"):
        read_channels(tmp_path)
    outputs = {"pred": {"channel_def": {"0": "background", "2": "lesion"}}}
    (tmp_path / "configs").mkdir()
    text = json.dumps({"network_data_format": {"outputs": outputs}})
    (tmp_path / "configs" / "metadata.json").write_text(text)
    with pytest.raises(UserError, match=r"labels with gaps – .* – expected 0, 1, 2, …, found \[0, 2\]"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"authors": None},
            'bundle without authors – .*metadata.json – expected a text "authors", found none – add it',
        ),
        (
            {"version": None},
            'bundle without version – .*metadata.json – expected a text "version", found none – add it',
        ),
        ({"version": 1.5}, "bundle without version – .* found 1.5"),
        ({"authors": " "}, "bundle without authors – .* found ' '"),
    ],
)
def test_a_bundle_without_authors_or_version_is_named(tmp_path, change, message):
    metadata = json.loads((BUNDLES / "brats24_segmentation_student" / "configs" / "metadata.json").read_text("utf-8"))
    file = tmp_path / "configs" / "metadata.json"
    file.parent.mkdir()
    file.write_text(json.dumps(metadata))
    assert read_origin(tmp_path) == (metadata["authors"], metadata["version"])
    kept = {key: value for key, value in {**metadata, **change}.items() if value is not None}
    file.write_text(json.dumps(kept))
    with pytest.raises(UserError, match=message):
        read_origin(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"network_data_format": []}'])
def test_metadata_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text(text)
    for read in (read_channels, read_labels, read_origin):
        with pytest.raises(UserError, match="no bundle – .*metadata.json|bundle without authors"):
            read(tmp_path)
