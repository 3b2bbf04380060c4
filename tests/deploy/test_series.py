"""Which series goes into which channel."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.errors import UserError
from deploy.dicom.bundle import read_channels, read_labels, read_origin
from deploy.dicom.main import main
from deploy.dicom.series import channel_patterns, choose_series
from tests.conftest import BUNDLES

CHANNELS = ["t1n", "t1c", "t2w", "t2f"]
BRATS = BundleFolder(BUNDLES / "brats24_segmentation_student")


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
    chosen = choose_series(channel_patterns(CHANNELS, []), series[::-1])
    assert list(chosen) == CHANNELS and list(chosen.values()) == series


def test_a_missing_series_is_named_with_what_there_is():
    series = study("T1pre_reg", "T1post", "T2_reg")
    message = r"series for t2f is missing – channel t2f, .*found 'T1pre_reg', 'T1post', 'T2_reg' – name the series"
    with pytest.raises(UserError, match=message):
        choose_series(channel_patterns(CHANNELS, []), series)


def test_two_candidates_are_not_guessed_between():
    with pytest.raises(UserError, match="several series for t1c – .*found 'T1post', 'T1post_2'"):
        choose_series({"t1c": channel_patterns(CHANNELS, [])["t1c"]}, study("T1post", "T1post_2"))
    with pytest.raises(UserError, match="one series for two channels – a and b – expected two series, found 'T1'"):
        choose_series({"a": "T1", "b": "T1"}, study("T1"))


def test_an_option_comes_before_the_default():
    patterns = channel_patterns(CHANNELS, ["t2f=^DARK FLUID$"])
    series = study("t1", "t1c", "t2", "dark fluid")
    assert choose_series(patterns, series)["t2f"] is series[3]
    assert list(channel_patterns(["T1"], ["T1=a=b"]).values()) == ["a=b"]


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
        channel_patterns(CHANNELS, options)


def test_a_single_channel_need_not_be_named_and_takes_the_only_series():
    assert channel_patterns(["T1"], []) == {"T1": ""}
    assert channel_patterns(["T1"], ["^t1 a=b$"]) == {"T1": "^t1 a=b$"}
    [only] = series = study("anything")
    assert choose_series(channel_patterns(["T1"], []), series) == {"T1": only}
    with pytest.raises(UserError, match="several series for T1 – .*found 'a', 'b'"):
        choose_series(channel_patterns(["T1"], []), study("a", "b"))
    with pytest.raises(UserError, match="series for T1 is missing – .*found none"):
        choose_series(channel_patterns(["T1"], []), [])


def test_channels_of_another_bundle_have_no_default():
    with pytest.raises(UserError, match="channel without a pattern – DWI – .* – name the series with --series CHANNEL"):
        channel_patterns(["t2f", "DWI"], [])


@pytest.fixture
def bundle_with(tmp_path):
    """A bundle's folder with another ``metadata.json``."""

    def make(text):
        shutil.copytree(BUNDLES / "brats24_segmentation_student" / "configs", tmp_path / "configs", dirs_exist_ok=True)
        (tmp_path / "configs" / "metadata.json").write_text(text)
        return BundleFolder(tmp_path)

    return make


def test_names_come_from_the_metadata():
    assert read_channels(BRATS) == CHANNELS
    assert read_labels(BRATS) == ["NETC", "SNFH", "ET", "RC"]
    assert read_labels(BundleFolder(BUNDLES / "hippocampus_segmentation_teacher")) == ["Anterior", "Posterior"]


def test_labels_with_gaps_are_refused(bundle_with):
    outputs = {"pred": {"channel_def": {"0": "background", "2": "lesion"}}}
    bundle = bundle_with(json.dumps({"network_data_format": {"outputs": outputs}}))
    with pytest.raises(UserError, match=r"labels with gaps – .*metadata.json – expected 0, 1, 2, …, found \[0, 2\]"):
        read_labels(bundle)


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
        ({"version": 1.5}, "unusable bundle – .*metadata.json, version – expected text, found 1.5"),
        ({"authors": " "}, "bundle without authors – .* found ' '"),
    ],
)
def test_a_bundle_without_authors_or_version_is_named(bundle_with, change, message):
    assert read_origin(BRATS) == (BRATS.metadata["authors"], BRATS.metadata["version"])
    kept = {key: value for key, value in {**BRATS.metadata, **change}.items() if value is not None}
    with pytest.raises(UserError, match=message):
        read_origin(bundle_with(json.dumps(kept)))


@pytest.mark.parametrize("text", ["[]", '{"network_data_format": []}', '{"network_data_format": {"inputs": 1}}'])
def test_metadata_of_another_kind_are_refused(bundle_with, text):
    with pytest.raises(
        UserError, match=r"unusable bundle – .*metadata.json(, network_data_format.*)? – expected an obj"
    ):
        bundle_with(text)


@pytest.mark.parametrize("text", ["{}", '{"network_data_format": {"inputs": {"image": {}}, "outputs": {"mask": {}}}}'])
def test_metadata_that_say_nothing_are_refused(bundle_with, text):
    bundle = bundle_with(text)
    for read in (read_channels, read_labels):
        with pytest.raises(UserError, match="no channels – .*metadata.json – expected .*channel_def, found .*Error"):
            read(bundle)
    with pytest.raises(UserError, match="bundle without authors"):
        read_origin(bundle)


@pytest.fixture
def command(monkeypatch, bundle_with, tmp_path):
    """The command on a bundle without weights, with an App SDK that must not be reached; its error."""
    monkeypatch.setitem(sys.modules, "deploy.dicom.app", None)
    bundle = bundle_with(json.dumps(BRATS.metadata))

    def run(**options):
        options = {"bundle": bundle.root, "input": tmp_path, "output": tmp_path / "out", **options}
        arguments = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        with pytest.raises(UserError) as caught:
            main(arguments)
        return str(caught.value)

    return run


def test_what_is_wrong_is_told_before_the_pipeline_starts(command, tmp_path):
    nowhere, file = tmp_path / "nowhere", tmp_path / "configs" / "metadata.json"
    assert command(bundle=nowhere).startswith(f"not a bundle – {nowhere}")
    assert command(input=nowhere).startswith(f"no input – {nowhere} – expected a folder of DICOM files")
    assert command(output=file).startswith(f"no output folder – {file} – expected a folder, found a file")
    assert command(series="flair=x").startswith("unknown channel – --series flair=x")
    assert command().startswith(f"no weights – {tmp_path / 'models'} – expected model.pt")
