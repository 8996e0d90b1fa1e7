"""Bodies of every kind, tiny: a builder for each family, and what a batch of its inputs looks like."""

import keras
import numpy as np

BATCH = 3
LENGTH = 6
WORDS = 20
SIDE = 16

TEXT = {"vocabulary_size": WORDS, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16}
GROUPED = {
    "vocabulary_size": WORDS, "num_layers": 2, "num_query_heads": 4, "num_key_value_heads": 2, "hidden_dim": 8,
    "intermediate_dim": 16,
}  # fmt: skip
_VISION = {"image_shape": (SIDE, SIDE, 3), "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 8}


def _hub():
    import keras_hub

    return keras_hub.models


def bert():
    return _hub().BertBackbone(max_sequence_length=LENGTH, **TEXT)


def distil_bert():
    return _hub().DistilBertBackbone(max_sequence_length=LENGTH, **TEXT)


def roberta():
    return _hub().RobertaBackbone(max_sequence_length=LENGTH, **TEXT)


def gpt2(**options):
    return _hub().GPT2Backbone(max_sequence_length=LENGTH, **{**TEXT, **options})


def gpt_neo_x():
    return _hub().GPTNeoXBackbone(max_sequence_length=LENGTH, rotary_percentage=0.5, **TEXT)


def esm():
    return _hub().ESMBackbone(max_sequence_length=LENGTH, **TEXT)


def roformer_v2():
    return _hub().RoformerV2Backbone(head_size=4, **TEXT)


def t5():
    return _hub().T5Backbone(dropout=0.0, **TEXT)


def bart():
    return _hub().BartBackbone(max_sequence_length=LENGTH, **TEXT)


def f_net():
    return _hub().FNetBackbone(**{key: value for key, value in TEXT.items() if key != "num_heads"})


def gemma():
    return _hub().GemmaBackbone(head_dim=4, **{**GROUPED, "num_key_value_heads": 1})


def llama():
    return _hub().LlamaBackbone(**GROUPED)


def qwen3():
    return _hub().Qwen3Backbone(head_dim=4, **GROUPED)


def mixtral():
    return _hub().MixtralBackbone(num_experts=2, top_k=1, **GROUPED)


def smollm3():
    return _hub().SmolLM3Backbone(
        vocabulary_size=WORDS, hidden_dim=8, intermediate_dim=16, num_layers=2, num_attention_heads=2,
        num_key_value_heads=2, attention_bias=False, attention_dropout=0.0, rope_layer_enabled_list=[True, True],
        layer_types=["full_attention"] * 2, mlp_bias=False, layer_norm_epsilon=1e-5, max_position_embeddings=LENGTH,
        rope_theta=10000.0, partial_rotary_factor=1.0,
    )  # fmt: skip


def vit():
    return _hub().ViTBackbone(mlp_dim=16, **_VISION)


def deit():
    return _hub().DeiTBackbone(intermediate_dim=16, **_VISION)


def dinov2():
    return _hub().DINOV2Backbone(intermediate_dim=16, position_embedding_shape=(SIDE, SIDE, 3), **_VISION)


def _encoder():
    return {"hidden_dim": 8, "num_layers": 2, "num_heads": 2, "intermediate_dim": 16}


def clip():
    vision = _hub().CLIPVisionEncoder(patch_size=8, image_shape=(SIDE, SIDE, 3), **_encoder())
    text = _hub().CLIPTextEncoder(vocabulary_size=WORDS, embedding_dim=8, max_sequence_length=LENGTH, **_encoder())
    return _hub().CLIPBackbone(vision_encoder=vision, text_encoder=text, projection_dim=8)


def siglip_vision():
    return _hub().SigLIPVisionEncoder(patch_size=8, image_shape=(SIDE, SIDE, 3), **_encoder())


def dinov3():
    return _hub().DINOV3Backbone(intermediate_dim=16, num_register_tokens=1, **_VISION)


def swin():
    return _hub().SwinTransformerBackbone(
        image_shape=(SIDE, SIDE, 3), embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=2, patch_size=4,
        drop_path=0.0,
    )  # fmt: skip


def vit_det():
    return _hub().ViTDetBackbone(
        hidden_size=8, num_layers=2, intermediate_dim=16, num_heads=2, global_attention_layer_indices=[1],
        image_shape=(SIDE, SIDE, 3), patch_size=8, num_output_channels=4, window_size=2,
    )  # fmt: skip


def mit():
    return _hub().MiTBackbone(
        layerwise_depths=[1, 1], num_layers=2, layerwise_num_heads=[1, 2], layerwise_sr_ratios=[2, 1],
        max_drop_path_rate=0.0, layerwise_patch_sizes=[7, 3], layerwise_strides=[4, 2], image_shape=(SIDE, SIDE, 3),
        hidden_dims=[4, 8],
    )  # fmt: skip


def flux():
    return _hub().FluxBackbone(
        input_channels=8, hidden_size=24, mlp_ratio=2.0, num_heads=2, depth=1, depth_single_blocks=1, theta=10000,
        axes_dim=[4, 4, 4], use_bias=True, image_shape=(4, 8), text_shape=(4, 8), image_ids_shape=(4, 3),
        text_ids_shape=(4, 3), y_shape=(8,),
    )  # fmt: skip


def sam():
    import keras_hub

    encoder = _hub().ViTDetBackbone(
        hidden_size=8, num_layers=1, intermediate_dim=16, num_heads=2, global_attention_layer_indices=[0],
        image_shape=(32, 32, 3), patch_size=8, num_output_channels=8, window_size=2,
    )  # fmt: skip
    prompts = keras_hub.layers.SAMPromptEncoder(
        hidden_size=8, image_embedding_size=(4, 4), input_image_size=(32, 32), mask_in_channels=4
    )
    decoder = keras_hub.layers.SAMMaskDecoder(
        num_layers=1, hidden_size=8, intermediate_dim=16, num_heads=2, embedding_dim=8, num_multimask_outputs=3,
        iou_head_depth=2, iou_head_hidden_dim=8,
    )  # fmt: skip
    return _hub().SAMBackbone(image_encoder=encoder, prompt_encoder=prompts, mask_decoder=decoder)


def _sees_for_blip2():
    """What BLIP-2 has before its language model."""
    vision = _hub().BLIP2VisionEncoder(
        image_size=SIDE, patch_size=8, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16,
        use_patch_bias=True, use_class_token=True, use_mha_bias=True, use_mlp_bias=True, dropout_rate=0.0,
        layer_norm_epsilon=1e-6, initializer_range=0.02,
    )  # fmt: skip
    qformer = _hub().BLIP2QFormer(
        num_query_tokens=2, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=16, vision_dim=8,
        cross_attention_frequency=2, dropout=0.0, layer_norm_epsilon=1e-12,
    )  # fmt: skip
    return {"vision_encoder": vision, "qformer": qformer}


def blip2(**of_language):
    language = _hub().BLIP2CustomOPT(
        num_query_tokens=2, qformer_hidden_dim=8, dropout=0.0,
        **{"max_sequence_length": LENGTH + 2, **TEXT, **of_language},
    )  # fmt: skip
    return _hub().BLIP2Backbone(**_sees_for_blip2(), language_model=language)


def blip2_t5(**of_language):
    language = _hub().BLIP2FlanT5(num_query_tokens=2, qformer_hidden_dim=8, dropout=0.0, **TEXT | of_language)
    return _hub().BLIP2Backbone(**_sees_for_blip2(), language_model=language)


def pali_gemma(**options):
    return _hub().PaliGemmaBackbone(
        **{**GROUPED, "num_key_value_heads": 1, "head_dim": 4, "image_size": SIDE, "vit_patch_size": 8}
        | {"vit_num_heads": 2, "vit_hidden_dim": 8, "vit_num_layers": 2, "vit_intermediate_dim": 16, **options}
    )


def mobile_net():
    return keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.35)


def batch(model: keras.Model, seed: int = 0):
    """A batch of inputs for any functional model: word numbers, masks of ones, pictures."""
    generator = np.random.default_rng(seed)

    def filled(tensor):
        shape = (BATCH, *(LENGTH if side is None else side for side in tensor.shape[1:]))
        if "int" not in keras.backend.standardize_dtype(tensor.dtype):
            return generator.uniform(0, 1, shape).astype("float32")
        if "mask" in tensor.name:
            return np.ones(shape, "int32")
        return generator.integers(0, 2 if "segment" in tensor.name else WORDS, shape).astype("int32")

    return keras.tree.map_structure(filled, model.input)
