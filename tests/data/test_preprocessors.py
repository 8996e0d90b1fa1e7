"""Preprocessors that are written down and read again."""

import pytest
from readers import PREPROCESSORS, bert

from keras_transfer.data.preprocessors import check_kept

pytestmark = pytest.mark.both_backends


@pytest.mark.parametrize("family", PREPROCESSORS)
def test_a_preprocessor_reads_the_same_once_it_is_saved_and_loaded(family):
    check_kept(PREPROCESSORS[family]())


def test_a_setting_that_keras_hub_does_not_save_is_noticed():
    """KerasHub 0.32 leaves `split_on_cjk` out of the configuration of a `WordPieceTokenizer`."""
    with pytest.raises(ValueError, match=r"reads otherwise once it is saved and loaded[\s\S]*我爱你"):
        check_kept(bert(split_on_cjk=False))
