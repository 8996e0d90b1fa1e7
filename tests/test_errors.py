from keras_transfer.errors import explain, nearest


def test_the_nearest_name_forgives_case():
    assert nearest("resnet50v2", ["ResNet50", "ResNet50V2", "VGG16"]) == "ResNet50V2"


def test_there_is_no_nearest_name_where_none_is_near():
    assert nearest("qqqqq", ["stem", "top"]) is None


def test_an_error_lists_its_parts_in_order_and_leaves_out_what_is_not_known():
    text = explain("No.", given="blok", nearest=None, to_mend="two\nlines")
    assert text == "No.\n  given:     blok\n  to mend:   two\n             lines"
