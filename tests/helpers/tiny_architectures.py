"""Tiny random models of many architectures, on disk as `save_pretrained` writes them, with a word-level tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<s>", "</s>"]
WORDS = [f"w{number}" for number in range(97 - len(SPECIAL))]
TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }} w0 {% endfor %}{% if add_generation_prompt %} w1 {% endif %}"
)

SIZE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}
HEADS = {**SIZE, "head_dim": 16}
MOE = {**HEADS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
}
OLD: dict[str, Any] = {"vocab_size": 97, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LONG_ROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 2.0, 4.0, 6.0],
    "original_max_position_embeddings": 32,
    "factor": 4.0,
}


def _without(names: str, size: dict[str, Any] = SIZE) -> dict[str, Any]:
    return {name: value for name, value in size.items() if name not in names.split()}


# Name -> configuration class of transformers, its arguments.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {**SIZE, "attention_bias": True, "mlp_bias": True}),
    "llama, longrope": (
        "LlamaConfig",
        {**SIZE, "original_max_position_embeddings": 32, "rope_parameters": LONG_ROPE},
    ),
    "mistral, window": ("MistralConfig", {**SIZE, "sliding_window": 16}),
    "mixtral, window": ("MixtralConfig", {**SIZE, "num_local_experts": 4, "sliding_window": 16}),
    "ministral, window": (
        "MinistralConfig",
        {**HEADS, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "qwen2, window": (
        "Qwen2Config",
        {**SIZE, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    ),
    "qwen2, gelu": ("Qwen2Config", {**SIZE, "hidden_act": "gelu"}),
    "qwen2 moe": (
        "Qwen2MoeConfig",
        {
            **MOE,
            "shared_expert_intermediate_size": 16,
            "use_sliding_window": True,
            "sliding_window": 16,
            "max_window_layers": 1,
        },
    ),
    "qwen3": ("Qwen3Config", HEADS),
    "qwen3 moe": ("Qwen3MoeConfig", {**MOE, "use_sliding_window": True, "sliding_window": 16}),
    "qwen3-next": ("Qwen3NextConfig", {**MOE, **LINEAR, "shared_expert_intermediate_size": 16}),
    "qwen3.5": ("Qwen3_5TextConfig", {**HEADS, **LINEAR}),
    "gemma": ("GemmaConfig", HEADS),
    "gemma2": ("Gemma2Config", {**HEADS, "sliding_window": 16, "final_logit_softcapping": 2.0}),
    "gemma3": ("Gemma3TextConfig", {**HEADS, "sliding_window": 16, "sliding_window_pattern": 2}),
    "phi": ("PhiConfig", SIZE),
    "phi3, window": ("Phi3Config", {**SIZE, "sliding_window": 16}),
    "phi3, longrope": (
        "Phi3Config",
        {**SIZE, "original_max_position_embeddings": 32, "rope_parameters": LONG_ROPE},
    ),
    "gpt-neox": ("GPTNeoXConfig", _without("num_key_value_heads")),
    "falcon": (
        "FalconConfig",
        {
            **_without("num_key_value_heads intermediate_size pad_token_id"),
            "new_decoder_architecture": True,
            "num_kv_heads": 2,
        },
    ),
    "falcon, alibi": (
        "FalconConfig",
        {**_without("num_key_value_heads intermediate_size pad_token_id"), "alibi": True, "bias": True},
    ),
    "olmo2": ("Olmo2Config", SIZE),
    "olmo3": ("Olmo3Config", {**SIZE, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}),
    "smollm3": ("SmolLM3Config", {**SIZE, "no_rope_layers": [1, 0]}),
    "starcoder2, window": ("Starcoder2Config", {**SIZE, "sliding_window": 16}),
    "stablelm": ("StableLmConfig", SIZE),
    "granite": (
        "GraniteConfig",
        {
            **SIZE,
            "logits_scaling": 8.0,
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.1,
        },
    ),
    "granite moe hybrid": (
        "GraniteMoeHybridConfig",
        {
            **SIZE,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 32,
            "layer_types": ["mamba", "attention"],
            "mamba_n_heads": 4,
            "mamba_d_head": 16,
            "mamba_d_state": 8,
            "logits_scaling": 4.0,
        },
    ),
    "cohere": ("CohereConfig", {**SIZE, "logit_scale": 0.25}),
    "cohere2": (
        "Cohere2Config",
        {**HEADS, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"], "logit_scale": 0.25},
    ),
    "minicpm3": (
        "MiniCPM3Config",
        {
            **_without("num_key_value_heads"),
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
            "dim_model_base": 8,
        },
    ),
    "deepseek v3": (
        "DeepseekV3Config",
        {
            **_without("num_key_value_heads"),
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 2,
            "topk_group": 1,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
        },
    ),
    "gpt-oss": ("GptOssConfig", {**HEADS, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16}),
    "llama 4": (
        "Llama4TextConfig",
        {
            **HEADS,
            "attention_chunk_size": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "intermediate_size_mlp": 64,
            "no_rope_layers": [1, 0],
            "layer_types": ["chunked_attention", "full_attention"],
        },
    ),
    "gpt2": (
        "GPT2Config",
        {**OLD, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.3},
    ),
    "gpt-bigcode": (
        "GPTBigCodeConfig",
        {**OLD, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.3},
    ),
    "gpt-neo": (
        "GPTNeoConfig",
        {
            **OLD,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "intermediate_size": 64,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 16,
            "max_position_embeddings": 128,
            "initializer_range": 0.3,
        },
    ),
    "gpt-j": (
        "GPTJConfig",
        {**OLD, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "rotary_dim": 8, "initializer_range": 0.3},
    ),
    "opt": (
        "OPTConfig",
        {
            **OLD,
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": 128,
            "init_std": 0.3,
        },
    ),
    "opt, narrow embeddings": (
        "OPTConfig",
        {
            **OLD,
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 16,
            "do_layer_norm_before": False,
            "max_position_embeddings": 128,
            "init_std": 0.3,
        },
    ),
    "bloom": ("BloomConfig", {**OLD, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}),
    "mpt": (
        "MptConfig",
        {**OLD, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128, "initializer_range": 0.3},
    ),
    "mamba": ("MambaConfig", {**OLD, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "mamba 2": (
        "Mamba2Config",
        {
            **OLD,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 4,
            "head_dim": 16,
            "n_groups": 1,
        },
    ),
    "jamba": (
        "JambaConfig",
        {
            **SIZE,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "mamba_d_state": 4,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
    ),
    "falcon h1": (
        "FalconH1Config",
        {
            **HEADS,
            "mamba_d_ssm": 32,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_n_groups": 1,
            "mamba_d_state": 8,
            "lm_head_multiplier": 0.25,
        },
    ),
    "recurrent gemma": (
        "RecurrentGemmaConfig",
        {
            **SIZE,
            "block_types": ["recurrent", "attention"],
            "lru_width": 32,
            "attention_window_size": 16,
            "logits_soft_cap": 2.0,
        },
    ),
    "lfm2": ("Lfm2Config", {**SIZE, "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}),
    "cwm": ("CwmConfig", {**HEADS, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}),
    "exaone 4": (
        "Exaone4Config",
        {**HEADS, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "ministral 3, window": ("Ministral3Config", {**HEADS, "sliding_window": 16}),
    "phi moe, window": ("PhimoeConfig", {**SIZE, "num_local_experts": 4, "sliding_window": 16}),
    "vaultgemma": (
        "VaultGemmaConfig",
        {**HEADS, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "moshi, unknown window": ("MoshiConfig", {**HEADS, "sliding_window": 20, "ffn_dim": 64}),
    "modernbert decoder": (
        "ModernBertDecoderConfig",
        {
            **_without("num_key_value_heads"),
            "local_attention": 16,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "gemma3, with vision": (
        "Gemma3Config",
        {
            "text_config": {**HEADS, "sliding_window": 16, "sliding_window_pattern": 2},
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
            },
            "mm_tokens_per_image": 4,
            "boi_token_index": 94,
            "eoi_token_index": 95,
            "image_token_index": 96,
        },
    ),
    "bart, decoder alone": (
        "BartConfig",
        {
            **OLD,
            "d_model": 32,
            "decoder_layers": 2,
            "decoder_attention_heads": 4,
            "decoder_ffn_dim": 64,
            "init_std": 0.3,
            "is_decoder": True,
            "is_encoder_decoder": False,
        },
    ),
    "qwen4, indexed attention": ("Qwen4ExpTextConfig", MOE),
    "hy-v4": ("HYV4Config", MOE),
}


def config_of(name: str) -> PreTrainedConfig:
    kind, arguments = ARCHITECTURES[name]
    config = getattr(transformers, kind)(**arguments)
    assert isinstance(config, PreTrainedConfig)
    return config


def write_model(name: str, folder: Path) -> Path:
    """Write the architecture's random model and the tokenizer, and return the folder."""
    config = config_of(name)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter, weight in model.named_parameters():
        if "norm" in parameter or parameter.endswith("bias"):  # ones and zeros would hide a mistake
            torch.nn.init.normal_(weight, 1.0 if "norm" in parameter else 0.0, 0.2)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    words = {word: position for position, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<pad>"
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
