"""Adapters on every backbone class of KerasHub, ours and KerasHub's own `enable_lora`: how many layers get one.

    python benchmarks/adapter_families.py [class ...]

Each class is built tiny, with random weights. For each it prints how many linear layers (Dense, EinsumDense) the body
has; how many of them get an adapter from `kt.add_lora` with targets="attention" and "all-linear", and how many layers
from `backbone.enable_lora(rank)`; whether the outputs were the same to the last bit after `add_lora`, and whether no
weight but the factors changed in a step of Adam. Words in place of a number are the first line of the error.

TensorFlow alone: the step is taken with its gradient tape, so that any structure of outputs will do.

KerasHub 0.32 on Keras 3.15.1 and TensorFlow 2.21: 80 classes, 68 with linear layers. Of the 68, all get adapters with
"all-linear", 67 with "attention" (FNet has none), and 53 by KerasHub, which leaves 15 without any, silently: D-FINE,
DINOv3, ESM, FNet, Flux, GPT-NeoX, Gemma 3n, MiT, RoFormer v2, SAM, SegFormer, SmolLM3, Swin, T5 and ViTDet. Outputs and
base are kept by all 68. "all-linear" leaves out the logits of RWKV7 and PARSeq, and SAM's mask decoder, which its
backbone never builds. 140 s on two cores.
"""

import argparse
import inspect
import os
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_hub
import numpy as np
import tensorflow as tf

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.adapters import base_identity

hub = keras_hub.models
SIDE = 16

# What a tiny body is given for every argument of that name.
SIZES = {
    "vocabulary_size": 20, "vocab_size": 20, "num_layers": 2, "num_heads": 2, "num_attention_heads": 2,
    "num_query_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "hidden_dim": 8, "hidden_size": 8,
    "embedding_dim": 8, "intermediate_dim": 16, "mlp_dim": 16, "moe_intermediate_dim": 8, "num_experts": 2,
    "shared_expert_intermediate_dim": 8, "shared_expert_intermediate_size": 8, "top_k": 1, "max_sequence_length": 8,
    "image_shape": (SIDE, SIDE, 3), "image_size": SIDE, "patch_size": 8, "projection_dim": 8, "head_size": 4,
    "dropout": 0.0,
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("classes", nargs="*")
    wanted = parser.parse_args().classes
    warnings.simplefilter("ignore")  # of KerasHub's own layers
    rows = []
    started = time.time()
    print(f"{'class':32} {'linear':>8} {'attention':>10} {'all-linear':>11} {'KerasHub':>9}  outputs, base")
    for name in wanted or backbones():
        row = examine(name)
        rows.append(row)
        print(
            f"{name:32} {row['linear']!s:>8} {row['attention']!s:>10} {row['all-linear']!s:>11} "
            f"{row['hub']!s:>9}  {row['promises']}",
            flush=True,
        )
    linear = [row for row in rows if isinstance(row["linear"], int) and row["linear"]]

    def with_any(column):
        return sum(isinstance(row[column], int) and row[column] > 0 for row in linear)

    print(
        f"{len(rows)} classes, {len(linear)} of them with linear layers. Of these get adapters on attention: "
        f"{with_any('attention')}, on all linear layers: {with_any('all-linear')}, by KerasHub: {with_any('hub')}; "
        f"keep outputs and base: {sum(row['promises'] == 'same, same' for row in linear)}. "
        f"{time.time() - started:.0f} s"
    )


def backbones() -> list[str]:
    """The names of KerasHub's backbone classes, each class once."""
    return [
        name
        for name, member in sorted(vars(hub).items())
        if inspect.isclass(member) and issubclass(member, hub.Backbone) and member.__name__ == name
        if name not in ("Backbone", "FeaturePyramidBackbone")  # bases of others
    ]


def examine(name: str) -> dict:
    row = {"linear": "-", "attention": "-", "all-linear": "-", "hub": "-", "promises": "-"}
    try:
        body = build(name)
        row["linear"] = sum(isinstance(x, keras.layers.Dense | keras.layers.EinsumDense) for x in state.sublayers(body))
        probe = probe_for(body)
        promises = []
        for targets in ("attention", "all-linear"):
            try:
                table, kept = adapt(body, targets, probe)
            except ValueError as error:
                if "has no attention" not in str(error) and "has no linear" not in str(error):
                    raise
                row[targets] = 0
                continue
            row[targets] = len(table)
            promises.append(kept)
            kt.remove_adapter(body, "default")
        row["promises"] = "; ".join(dict.fromkeys(promises)) or "-"
    except Exception as error:
        row["promises"] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:90]}"
    try:
        body = build(name)
        body.enable_lora(2)
        row["hub"] = sum(getattr(layer, "lora_enabled", False) for layer in state.sublayers(body))
    except Exception as error:
        row["hub"] = type(error).__name__
    return row


def probe_for(body: keras.Model) -> list:
    """The inputs that `save_adapter` would make up; ones, of free sides one, where it would ask for some (SAM 3)."""
    try:
        return base_identity.probe_inputs(body)
    except ValueError:
        return [
            np.ones([2, *(side or 1 for side in tensor.shape[1:])], tensor.dtype)
            for tensor in keras.tree.flatten(body.input)
        ]


def adapt(body: keras.Model, targets: str, probe: list) -> tuple:
    """The table of a new adapter, and whether outputs and base were kept through its beginning and a step."""
    before, again = base_identity.answers(body, probe), base_identity.answers(body, probe)
    base = base_identity.weights_digest(body)
    table = kt.add_lora(body, rank=2, targets=targets)
    after = base_identity.answers(body, probe)
    # Stable Diffusion draws its latents anew in each call.
    sure = [place for place in range(len(before)) if np.array_equal(before[place], again[place])]
    same = bool(sure) and all(np.array_equal(before[place], after[place]) for place in sure)
    inputs = keras.tree.pack_sequence_as(body.input, probe)
    with tf.GradientTape() as tape:
        outputs = [x for x in keras.tree.flatten(body(inputs, training=True)) if "float" in str(x.dtype)]
        loss = sum(tf.reduce_mean(tf.cast(output, "float32") ** 2) for output in outputs)
    trained = body.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in trained])
    reached = [(g, v) for g, v in zip(gradients, trained, strict=True) if g is not None]
    keras.optimizers.Adam(0.1).apply_gradients(reached)
    still = base_identity.weights_digest(body) == base
    return table, f"{'same' if same else 'CHANGED'}, {'same' if still else 'CHANGED'}"


def build(name: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    return made(getattr(hub, name), **OWN.get(name, dict)())


def made(kind: type, **own) -> keras.Model:
    """A tiny one of this class: what `SIZES` has for its arguments, and its own."""
    known = inspect.signature(kind.__init__).parameters
    return kind(**{key: value for key, value in SIZES.items() if key in known} | own)


# What classes need beside `SIZES`.


def res_net(**own):
    return dict(
        input_conv_filters=[64], input_conv_kernel_sizes=[7], stackwise_num_filters=[64, 64, 64, 64],
        stackwise_num_blocks=[1, 1, 1, 1], stackwise_num_strides=[1, 2, 2, 2], block_type="basic_block",
        image_shape=(32, 32, 3), **own,
    )  # fmt: skip


def mit():
    return dict(
        layerwise_depths=[1, 1], layerwise_num_heads=[1, 2], layerwise_sr_ratios=[2, 1], max_drop_path_rate=0.0,
        layerwise_patch_sizes=[7, 3], layerwise_strides=[4, 2], hidden_dims=[4, 8],
    )  # fmt: skip


def vit_det(**own):
    return dict(global_attention_layer_indices=[1], num_output_channels=8, window_size=2) | own


def two_towers(prefix: str):
    return lambda: {
        "vision_encoder": made(getattr(hub, f"{prefix}VisionEncoder")),
        "text_encoder": made(getattr(hub, f"{prefix}TextEncoder")),
    }


def blip2():
    vision = dict(
        num_layers=1, use_patch_bias=True, use_class_token=True, use_mha_bias=True, use_mlp_bias=True, dropout_rate=0.0,
        layer_norm_epsilon=1e-6, initializer_range=0.02,
    )  # fmt: skip
    return {
        "vision_encoder": made(hub.BLIP2VisionEncoder, **vision),
        "qformer": made(
            hub.BLIP2QFormer, num_query_tokens=2, vision_dim=8, cross_attention_frequency=2, layer_norm_epsilon=1e-12
        ),
        "language_model": made(
            hub.BLIP2CustomOPT,
            num_query_tokens=2,
            qformer_hidden_dim=8,
            max_sequence_length=SIZES["max_sequence_length"] + 2,
        ),
    }


def sam():
    layers = keras_hub.layers
    return {
        "image_encoder": made(hub.ViTDetBackbone, image_shape=(32, 32, 3), **vit_det()),
        "prompt_encoder": layers.SAMPromptEncoder(
            hidden_size=8, image_embedding_size=(4, 4), input_image_size=(32, 32), mask_in_channels=4
        ),
        "mask_decoder": layers.SAMMaskDecoder(
            num_layers=1, hidden_size=8, intermediate_dim=16, num_heads=2, embedding_dim=8, num_multimask_outputs=3,
            iou_head_depth=2, iou_head_hidden_dim=8,
        ),
    }  # fmt: skip


def sam3():
    layers, size = keras_hub.layers, (56, 56, 3)
    return {
        "vision_encoder": made(
            layers.SAM3VisionEncoder, image_shape=size, patch_size=14, fpn_hidden_dim=8,
            fpn_scale_factors=[4.0, 2.0, 1.0, 0.5], pretrain_image_shape=size, window_size=2, global_attn_indexes=[1],
        ),
        "text_encoder": made(layers.SAM3TextEncoder),
        "geometry_encoder": made(layers.SAM3GeometryEncoder, roi_size=7),
        "detr_encoder": made(layers.SAM3DetrEncoder),
        "detr_decoder": made(layers.SAM3DetrDecoder, image_shape=size, patch_size=14, num_queries=4),
        "mask_decoder": made(layers.SAM3MaskDecoder, num_upsampling_stages=3),
    }  # fmt: skip


def stable_diffusion_3():
    from keras_hub.src.models.vae.vae_backbone import VAEBackbone  # not public, and there is no other

    vae = VAEBackbone(
        encoder_num_filters=[32] * 4, encoder_num_blocks=[1] * 4, decoder_num_filters=[32] * 4,
        decoder_num_blocks=[1] * 4, image_shape=(64, 64, 3),
    )  # fmt: skip
    text = dict(intermediate_output_index=0)
    return dict(
        mmdit_patch_size=2, mmdit_hidden_dim=8, mmdit_num_layers=2, mmdit_num_heads=2, mmdit_position_size=8,
        mmdit_qk_norm=None, mmdit_dual_attention_indices=None, vae=vae, image_shape=(64, 64, 3),
        clip_l=made(hub.CLIPTextEncoder, name="clip_l", max_sequence_length=77, **text),
        clip_g=made(hub.CLIPTextEncoder, name="clip_g", max_sequence_length=77, **text),
    )  # fmt: skip


def hg_net():
    return dict(
        depths=[1, 1, 1, 1], embedding_size=8, hidden_sizes=[8, 8, 16, 16], stem_channels=[3, 8, 8], hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[[8, 8, 8, 1, 1, 3], [8, 8, 8, 1, 1, 3], [8, 8, 16, 1, 1, 3], [16, 8, 16, 1, 1, 3]],
        apply_downsample=[False, True, True, True], use_lightweight_conv_block=[False] * 4, image_shape=(64, 64, 3),
    )  # fmt: skip


def d_fine():
    body = made(hub.HGNetV2Backbone, out_features=["stage3", "stage4"], **hg_net())
    return dict(
        backbone=body, decoder_in_channels=[8, 8], encoder_hidden_dim=8, num_denoising=0, num_labels=4, hidden_dim=8,
        learn_initial_query=False, num_queries=4, anchor_image_size=(64, 64), feat_strides=[16, 32],
        num_feature_levels=2, encoder_in_channels=[16, 16], encode_proj_layers=[1], num_attention_heads=2,
        encoder_ffn_dim=16, num_encoder_layers=1, hidden_expansion=0.5, depth_multiplier=0.5, eval_idx=-1,
        num_decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=16, decoder_n_points=[2, 2], lqe_hidden_dim=8,
        num_lqe_layers=2, out_features=["stage3", "stage4"], image_shape=(64, 64, 3), seed=0,
    )  # fmt: skip


def gemma_3n():
    return dict(
        text_vocab_size=20, text_hidden_size=8, num_hidden_layers=2, pad_token_id=0, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=[16, 16], hidden_activation="gelu_approximate",
        layer_types=["full_attention"] * 2, sliding_window=4, rope_theta=10000.0, max_position_embeddings=16,
        vocab_size_per_layer_input=20, hidden_size_per_layer_input=2, altup_num_inputs=2, laurel_rank=1,
    )  # fmt: skip


def smol_lm_3():
    return dict(
        attention_bias=False, attention_dropout=0.0, rope_layer_enabled_list=[True, True],
        layer_types=["full_attention"] * 2, mlp_bias=False, layer_norm_epsilon=1e-5, max_position_embeddings=8,
        rope_theta=10000.0, partial_rotary_factor=1.0,
    )  # fmt: skip


def t5_gemma():
    return {
        f"{part}_{key}": value
        for part in ("encoder", "decoder")
        for key, value in dict(
            hidden_dim=8, intermediate_dim=16, num_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=4,
            layer_types=["full_attention"] * 2,
        ).items()
    }  # fmt: skip


def mobile_net():
    return dict(
        stackwise_expansion=[[8, 8]], stackwise_num_blocks=[2], stackwise_num_filters=[[8, 8]],
        stackwise_kernel_size=[[3, 3]], stackwise_num_strides=[[2, 1]], stackwise_se_ratio=[[None, 0.25]],
        stackwise_activation=[["relu", "hard_swish"]], stackwise_padding=[[1, 1]], output_num_filters=8,
        depthwise_filters=8, depthwise_stride=2, depthwise_residual=False, last_layer_filter=8, squeeze_and_excite=0.5,
        image_shape=(32, 32, 3),
    )  # fmt: skip


def mobile_net_v5():
    return dict(
        stackwise_block_types=[["er"], ["uir", "mqa"]], stackwise_num_blocks=[1, 2],
        stackwise_num_filters=[[8], [8, 8]],
        stackwise_strides=[[2], [2, 1]], stackwise_act_layers=[["relu"], ["relu", "relu"]],
        stackwise_exp_ratios=[[2.0], [2.0, 2.0]], stackwise_se_ratios=[[0.0], [0.0, 0.0]],
        stackwise_dw_kernel_sizes=[[0], [5, 5]], stackwise_dw_start_kernel_sizes=[[0], [0, 0]],
        stackwise_dw_end_kernel_sizes=[[0], [0, 0]], stackwise_exp_kernel_sizes=[[3], [0, 0]],
        stackwise_pw_kernel_sizes=[[1], [0, 0]], stackwise_num_heads=[[0], [0, 2]], stackwise_key_dims=[[0], [0, 4]],
        stackwise_value_dims=[[0], [0, 4]], stackwise_kv_strides=[[0], [0, 1]],
        stackwise_use_cpe=[[False], [False, False]], use_msfa=False, image_shape=(32, 32, 3),
    )  # fmt: skip


def efficient_net():
    return dict(
        stackwise_kernel_sizes=[3, 3], stackwise_num_repeats=[1, 1], stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 8], stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.0, 0.25], stackwise_strides=[1, 2],
        stackwise_block_types=["fused", "unfused"], stackwise_width_coefficients=[1.0, 1.0],
        stackwise_depth_coefficients=[1.0, 1.0], input_shape=(32, 32, 3),
    )  # fmt: skip


OWN = {
    "BASNetBackbone": lambda: {
        "image_encoder": made(hub.ResNetBackbone, **res_net() | {"image_shape": (None, None, 3)}), "num_classes": 2,
        "image_shape": (64, 64, 3)},
    "BLIP2Backbone": blip2,
    "CLIPBackbone": two_towers("CLIP"),
    "CSPNetBackbone": lambda: dict(
        stem_filters=8, stem_kernel_size=3, stem_strides=1, stackwise_depth=[1, 1], stackwise_strides=[1, 2],
        stackwise_num_filters=[8, 16], block_type="dark_block", stage_type="dark", image_shape=(32, 32, 3)),
    "DFineBackbone": d_fine,
    "DINOV2Backbone": lambda: {"position_embedding_shape": (SIDE, SIDE, 3)},
    "DeepLabV3Backbone": lambda: dict(
        image_encoder=made(hub.ResNetBackbone, **res_net()), spatial_pyramid_pooling_key="P5", upsampling_size=8,
        dilation_rates=[6, 12, 18], low_level_feature_key="P2", image_shape=(32, 32, 3)),
    "DenseNetBackbone": lambda: {"stackwise_num_repeats": [1, 1], "image_shape": (32, 32, 3)},
    "DepthAnythingBackbone": lambda: dict(
        image_encoder=made(
            hub.DINOV2Backbone, num_layers=4, image_shape=(64, 64, 3), position_embedding_shape=(64, 64, 3)),
        reassemble_factors=[4, 2, 1, 0.5], neck_hidden_dims=[8] * 4, fusion_hidden_dim=8, head_hidden_dim=8,
        head_in_index=-1, feature_keys=["stage1", "stage2", "stage3", "stage4"]),
    "EdRecBackbone": lambda: {"num_layers_enc": 2, "num_layers_dec": 2},
    "EfficientNetBackbone": efficient_net,
    "FluxBackbone": lambda: dict(
        input_channels=8, hidden_size=24, mlp_ratio=2.0, depth=1, depth_single_blocks=1, theta=10000,
        axes_dim=[4, 4, 4], use_bias=True, image_shape=(4, 8), text_shape=(4, 8), image_ids_shape=(4, 3),
        text_ids_shape=(4, 3), y_shape=(8,)),
    "GPTNeoXBackbone": lambda: {"rotary_percentage": 0.5},
    "Gemma3nBackbone": gemma_3n,
    "HGNetV2Backbone": hg_net,
    "MetaCLIP2Backbone": two_towers("MetaCLIP2"),
    "MiTBackbone": mit,
    "MobileNetBackbone": mobile_net,
    "MobileNetV5Backbone": mobile_net_v5,
    "MoonshineBackbone": lambda: dict(
        filter_dim=8, encoder_num_layers=2, decoder_num_layers=2, encoder_num_heads=2, decoder_num_heads=2),
    "PARSeqBackbone": lambda: dict(
        image_encoder=made(hub.ViTBackbone, use_class_token=False), max_label_length=8, decoder_hidden_dim=8,
        num_decoder_layers=1, num_decoder_heads=2, decoder_mlp_dim=16),
    "PaliGemmaBackbone": lambda: dict(
        vit_patch_size=8, vit_num_heads=2, vit_hidden_dim=8, vit_num_layers=2, vit_intermediate_dim=16),
    "Qwen3_5Backbone": lambda: dict(
        layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2, linear_num_value_heads=2,
        linear_key_head_dim=4, linear_value_head_dim=4, partial_rotary_factor=0.5),
    "Qwen3_5MoeBackbone": lambda: dict(
        layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2, linear_num_value_heads=2,
        linear_key_head_dim=4, linear_value_head_dim=4, partial_rotary_factor=0.5),
    "RWKV7Backbone": lambda: dict(gate_lora=2, mv_lora=2, aaa_lora=2, decay_lora=2),
    "ResNetBackbone": res_net,
    "RetinaNetBackbone": lambda: dict(
        image_encoder=made(hub.ResNetBackbone, **res_net()), min_level=3, max_level=5, use_p5=False,
        image_shape=(32, 32, 3)),
    "SAM3PromptableConceptBackbone": sam3,
    "SAMBackbone": sam,
    "SegFormerBackbone": lambda: {"image_encoder": made(hub.MiTBackbone, **mit()), "projection_filters": 8},
    "SigLIPBackbone": two_towers("SigLIP"),
    "SmolLM3Backbone": smol_lm_3,
    "StableDiffusion3Backbone": stable_diffusion_3,
    "SwinTransformerBackbone": lambda: dict(
        embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=2, patch_size=4, drop_path=0.0),
    "T5GemmaBackbone": t5_gemma,
    "T5Gemma2Backbone": t5_gemma,
    "VGGBackbone": lambda: dict(
        stackwise_num_repeats=[1, 1], stackwise_num_filters=[8, 8], image_shape=(32, 32, 3)),
    "ViTDetBackbone": vit_det,
    "VideoPrismBackbone": lambda: dict(
        num_frames=2, num_spatial_layers=1, num_temporal_layers=1, num_auxiliary_layers=1, num_text_layers=1),
    "XceptionBackbone": lambda: dict(
        stackwise_conv_filters=[[8, 8], [8, 8]], stackwise_pooling=[True, False], image_shape=(64, 64, 3)),
}  # fmt: skip


if __name__ == "__main__":
    main()
