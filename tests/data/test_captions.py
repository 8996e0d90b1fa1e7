"""Pictures with captions, through the data and through `fit`."""

import csv

import keras
import keras_hub
import numpy as np
import PIL.Image
import pytest
from adapters import families
from vocabularies import byte_pairs, sentence_pieces

import keras_transfer as kt
from keras_transfer import data, state

CAPTIONS = ["a dark film", "a light film", "a dark film", "a light film", "a dark one", "a light one"]
SIDE = families.SIDE


def pictures(count=6):
    """Dark and light in turns."""
    noise = np.random.default_rng(0).integers(0, 100, (count, 20, 24, 3))
    return (noise + 150 * (np.arange(count) % 2)[:, None, None, None]).astype("uint8")


def model(length=24):
    words = byte_pairs().vocabulary_size()
    body = families.blip2(vocabulary_size=words, max_sequence_length=length + 2, num_layers=1)
    converter = keras_hub.layers.BLIP2ImageConverter(image_size=(SIDE, SIDE))
    preprocessor = keras_hub.models.BLIP2CausalLMPreprocessor(
        byte_pairs(), image_converter=converter, sequence_length=length
    )
    return kt.image_to_text(body, preprocessor=preprocessor)


def pali_gemma(length=24):
    pieces = sentence_pieces(
        keras_hub.tokenizers.PaliGemmaTokenizer,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
    )  # fmt: skip
    preprocessor = keras_hub.models.PaliGemmaCausalLMPreprocessor(
        pieces, keras_hub.layers.PaliGemmaImageConverter(image_size=(SIDE, SIDE)), sequence_length=length
    )
    body = families.pali_gemma(vocabulary_size=pieces.vocabulary_size(), num_layers=1, vit_num_layers=1)
    return kt.image_to_text(body, preprocessor=preprocessor)


def blip2_t5(length=16):
    tokenizer = sentence_pieces(keras_hub.tokenizers.BLIP2FlanT5Tokenizer, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    preprocessor = keras_hub.models.BLIP2Seq2SeqLMPreprocessor(
        tokenizer,
        image_converter=keras_hub.layers.BLIP2ImageConverter(image_size=(SIDE, SIDE)),
        encoder_sequence_length=length,
        decoder_sequence_length=length,
    )
    body = families.blip2_t5(vocabulary_size=tokenizer.vocabulary_size(), num_layers=1)
    return kt.image_to_text(body, preprocessor=preprocessor)


def table(folder, rows, name="captions.csv"):
    for number, picture in enumerate(pictures(len(rows) - 1)):
        PIL.Image.fromarray(picture).save(folder / f"{number}.png")
    with open(folder / name, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / name


@pytest.mark.both_backends
def test_a_batch_is_what_the_models_own_preprocessor_makes_of_pictures_and_captions():
    writer = model()
    splits = data.captions((pictures(), CAPTIONS), batch_size=6, validation=0)
    ((x, y, weight),) = splits.evaluation_batches(splits.train, writer)
    expected, following, counted = writer.preprocessor({"images": pictures().astype("float32"), "text": CAPTIONS})
    np.testing.assert_allclose(x["images"], expected["images"], atol=1e-5)
    for found, whole in ((x["token_ids"], expected["token_ids"]), (y, following), (weight, counted)):
        shared = found.shape[1]
        np.testing.assert_array_equal(found, np.asarray(whole)[:, :shared])
        assert len(np.unique(np.asarray(whole)[:, shared:])) <= 1


@pytest.mark.both_backends
@pytest.mark.parametrize(
    ("family", "texts"),
    [
        (pali_gemma, {"prompts": ["", "it was\n"] * 3, "responses": CAPTIONS}),
        (blip2_t5, {"encoder_text": ["", "it was"] * 3, "decoder_text": CAPTIONS}),
    ],
    ids=["pali_gemma", "blip2_t5"],
)
def test_a_batch_is_what_a_preprocessor_that_takes_prompts_apart_makes_of_them(tmp_path, family, texts):
    rows = [["path", "prompt", "caption"], *([f"{n}.png", ["", "it was"][n % 2], c] for n, c in enumerate(CAPTIONS))]
    writer = family()
    splits = data.captions(table(tmp_path, rows), batch_size=6, validation=0)
    ((x, y, weight),) = splits.evaluation_batches(splits.train, writer)
    expected, following, counted = writer.preprocessor({"images": pictures().astype("float32"), **texts})
    assert set(x) == set(expected) == set(writer.input)
    np.testing.assert_allclose(x["images"], expected["images"], atol=1e-5)
    columns = [(x[name], expected[name]) for name in expected if name != "images"]
    for found, whole in [*columns, (y, following), (weight, counted)]:
        shared = found.shape[1]
        np.testing.assert_array_equal(found, np.asarray(whole)[:, :shared])
        assert not np.asarray(whole)[:, shared:].any()


@pytest.mark.parametrize("named", [{}, {"prompt": "question", "caption": "answer"}], ids=["found", "said"])
def test_of_a_prompt_nothing_is_learnt(tmp_path, named):
    path_of = [["path", "question", "answer"], *([f"{n}.png", "what is it", c] for n, c in enumerate(CAPTIONS))]
    writer = model(32)
    splits = data.captions(table(tmp_path, path_of), separator=" ", batch_size=6, validation=0, **named)
    assert splits.peek(splits.train, [1]).tolist() == ["what is it a light film"]
    ((_, y, weight),) = splits.evaluation_batches(splits.train, writer)
    first = np.asarray(y)[0][np.asarray(weight)[0].astype(bool)]
    end = writer.preprocessor.tokenizer.end_token_id
    assert writer.preprocessor.tokenizer.detokenize(first[first != end].tolist()).strip() == CAPTIONS[0]


def test_a_prompt_that_nobody_asked_for_is_said_and_can_be_left_out(tmp_path):
    rows = [["path", "prompt", "caption"], *([f"{n}.png", "what is it", c] for n, c in enumerate(CAPTIONS))]
    path = table(tmp_path, rows)
    asked = data.captions(path, batch_size=6, validation=0)
    assert "prompt from 'prompt'" in str(asked)
    alone = data.captions(path, prompt=False, batch_size=6, validation=0)
    assert alone.peek(alone.train, [0]).tolist() == [CAPTIONS[0]]
    with pytest.raises(ValueError, match="`picture` names a column that the table does not have"):
        data.captions(path, picture="file")


def test_what_is_wrong_is_listed_before_training(tmp_path):
    path = table(tmp_path, [["path", "caption"], *([f"{n}.png", c] for n, c in enumerate(CAPTIONS))])
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "2.png").unlink()
    with open(path, "a") as file:
        file.write("0.png,\n")
    with pytest.raises(ValueError, match=r"(?s)3 problems.*1\.png.*2\.png.*line 8: its response has no text"):
        data.captions(path)
    with pytest.warns(UserWarning, match="left out: 3"):
        splits = data.captions(path, on_bad_file="skip", batch_size=2, validation=0)
    assert len(splits.train) == 4


def test_as_many_captions_as_pictures():
    with pytest.raises(ValueError, match="6 pictures, 5 captions"):
        data.captions((pictures(), CAPTIONS[:5]))


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(model, id="blip2", marks=pytest.mark.both_backends),
        pytest.param(blip2_t5, id="blip2_t5"),
        pytest.param(pali_gemma, id="pali_gemma"),
    ],
)
def test_lora_on_a_model_that_sees_learns_to_caption_and_leaves_its_base_alone(family):
    keras.utils.set_random_seed(0)
    writer = family()
    splits = data.captions((pictures(), CAPTIONS), batch_size=6, validation=0)
    before = {i.path: v for i, v in zip(state.identities(writer), state.values(writer), strict=True)}
    run = kt.fit(
        writer, splits, kt.lora(writer, rank=2, targets="all-linear", epochs=6, learning_rate=0.03), verbose=False
    )
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    after = {i.path: v for i, v in zip(state.identities(writer), state.values(writer), strict=True)}
    for path, value in before.items():
        np.testing.assert_array_equal(value, after[path], err_msg=path)


def test_a_model_that_does_not_see_is_refused():
    body = families.gpt2(vocabulary_size=byte_pairs().vocabulary_size())
    writer = kt.causal_lm(body, preprocessor=keras_hub.models.GPT2CausalLMPreprocessor(byte_pairs(), sequence_length=8))
    splits = data.captions((pictures(), CAPTIONS), batch_size=2, validation=0)
    with pytest.raises(ValueError, match="Captions are not made for a GPT2CausalLMPreprocessor"):
        splits.training_batches(writer)
