# SPDX-License-Identifier: Apache-2.0
"""Write the preset `tiny-qwen2.5-vl`: a small Qwen2.5-VL configuration and a tokenizer.

The tokenizer, trained here, is made for short sequences, because the demo trains on two CPU cores
and every token costs: the fixed text of EO-1's conversation and the words of common manipulation
instructions are single tokens. There are no weights; a policy built from the preset starts from
random ones.

    python tools/make_tiny_qwen_preset.py src/vlakit/presets/tiny-qwen2.5-vl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

ROWS = 1344
"""Rows of the embedding: base tokens, Qwen's special tokens, EO-1's seven and a few spare ones."""

SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"),
    *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
]
ADDED = [
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    *("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
]
NUM_EO1_TOKENS = 7

PHRASES = ["system\nYou are a helpful physical assistant.", "user\n", "assistant\n"]
"""Fixed text of the conversation; each becomes one token."""

# One run of letters with the character before it, one digit, punctuation, line ends, spaces.
WORDS_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

WORDS = Path(__file__).with_name("tiny_qwen_preset_words.txt")
"""Verbs, nouns, modifiers and function words, one paragraph each."""

SENTENCES = [
    *("open the drawer", "close the drawer", "open the window", "close the window"),
    *("pick up the red block and place it on the blue block", "push the button", "open the door"),
    *("pick up the red block and place it in the bowl", "press a button from the top"),
    *("push the puck to a goal", "reach a goal position", "pick and place a puck to a goal"),
    *("push and open a window", "push and close a window", "insert a peg sideways"),
    *("open a drawer", "push and close a drawer", "open a door with a revolving joint"),
    *("press a button from the top and bypass a wall", "turn on the stove and put the pot on it"),
    *("put the bowl on the plate", "put the cream cheese in the bowl", "unplug a peg sideways"),
    *("pick up the black bowl between the plate and the ramekin and place it on the plate",),
    *("rotate the faucet clockwise", "rotate the faucet counter-clockwise", "hammer a screw"),
    *("push the T-shaped block onto the T-shaped target", "dunk the basketball into the basket"),
    *("put both the alphabet soup and the tomato sauce in the basket", "pull a lever down"),
    *("pick up the milk and place it in the basket", "close the microwave", "kick a soccer"),
]


def corpus() -> list[str]:
    """Return the training text: more repeats for what must become a single token."""
    groups = [text.split() for text in WORDS.read_text(encoding="utf-8").split("\n\n")]
    verbs, function_words = groups[0], groups[-1]
    lines = PHRASES * 4000 + SENTENCES * 50 + [", . ! ? : ; - ' \" ( ) \n"] * 20
    lines += [f" {word}" for group in groups for word in group] * 40
    lines += [f" {word}" for word in function_words] * 20
    # An instruction starts with its verb, without a space before it.
    lines += verbs * 40 + [verb.capitalize() for verb in verbs] * 4
    return lines


def make_tokenizer() -> Tokenizer:
    """Train the byte-level BPE and append Qwen2.5's special tokens in Qwen's order."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    fixed = "|".join(phrase.replace(".", r"\.").replace("\n", r"\n") for phrase in PHRASES)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(f"{fixed}|{WORDS_PATTERN}"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=ROWS - len(SPECIAL) - len(ADDED) - NUM_EO1_TOKENS - 2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in ADDED])
    return tokenizer


def model_config(tokenizer: Tokenizer) -> dict:
    """Return `config.json`: Qwen2.5-VL's keys, one million parameters."""
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "dtype": "float32",
        "image_token_id": tokenizer.token_to_id("<|image_pad|>"),
        "model_type": "qwen2_5_vl",
        "text_config": {
            "attention_dropout": 0.0,
            "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
            "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
            "hidden_act": "silu",
            "hidden_size": 128,
            "initializer_range": 0.02,
            "intermediate_size": 320,
            "layer_types": ["full_attention"] * 4,
            "max_position_embeddings": 4096,
            "max_window_layers": 4,
            "model_type": "qwen2_5_vl_text",
            "num_attention_heads": 4,
            "num_hidden_layers": 4,
            "num_key_value_heads": 2,
            "pad_token_id": None,
            "rms_norm_eps": 1e-06,
            "rope_parameters": {
                "mrope_section": [4, 6, 6],
                "rope_theta": 1000000.0,
                "rope_type": "default",
            },
            "sliding_window": None,
            "tie_word_embeddings": True,
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": ROWS,
        },
        "tie_word_embeddings": True,
        "video_token_id": tokenizer.token_to_id("<|video_pad|>"),
        "vision_config": {
            "depth": 3,
            "fullatt_block_indexes": [2],
            "hidden_act": "silu",
            "hidden_size": 96,
            "in_channels": 3,
            "initializer_range": 0.02,
            "intermediate_size": 192,
            "model_type": "qwen2_5_vl",
            "num_heads": 3,
            "out_hidden_size": 128,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 112,
        },
        "vision_end_token_id": tokenizer.token_to_id("<|vision_end|>"),
        "vision_start_token_id": tokenizer.token_to_id("<|vision_start|>"),
    }


CHAT_TEMPLATE = (
    "{%- for message in messages %}{%- if loop.first and message['role'] != 'system' %}{{- "
    "'<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif %}{{- "
    "'<|im_start|>' + message['role'] + '\n' }}{%- if message['content'] is string %}{{- "
    "message['content'] }}{%- else %}{%- for part in message['content'] %}{%- if part['type'] == "
    "'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}{%- elif part['type'] == "
    "'video' %}{{- '<|vision_start|><|video_pad|><|vision_end|>' }}{%- elif 'text' in part %}{{- "
    "part['text'] }}{%- endif %}{%- endfor %}{%- endif %}{{- '<|im_end|>\n' }}{%- endfor %}{%- if "
    "add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
TOKENIZER_CONFIG = {
    # Not Qwen2Tokenizer: that class rebuilds the word pattern and would split the fixed phrases.
    "tokenizer_class": "PreTrainedTokenizerFast",
    "add_bos_token": False,
    "add_prefix_space": False,
    "additional_special_tokens": SPECIAL[1:],
    "bos_token": None,
    "chat_template": CHAT_TEMPLATE,
    "clean_up_tokenization_spaces": False,
    "eos_token": "<|im_end|>",
    "errors": "replace",
    "model_max_length": 131072,
    "pad_token": "<|endoftext|>",
    "split_special_tokens": False,
    "unk_token": None,
}
PREPROCESSOR_CONFIG = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in (
        ("config.json", model_config(tokenizer)),
        ("tokenizer_config.json", TOKENIZER_CONFIG),
        ("preprocessor_config.json", PREPROCESSOR_CONFIG),
        ("chat_template.json", {"chat_template": CHAT_TEMPLATE}),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    size = tokenizer.get_vocab_size()
    print(f"{folder}: {size} tokens, {ROWS - size - NUM_EO1_TOKENS} spare rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
