"""A run directory that can be served, made in seconds: tiny random models, an identifier trained on two vocabularies."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import fasttext
import torch
from peft import LoraConfig, get_peft_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, BertConfig, BertModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from compass_ray.artifacts import Identity, RunDir
from compass_ray.clustering import fit_clusters
from compass_ray.config import RunConfig, parse_config
from compass_ray.core.distribution import cluster_counts
from compass_ray.models.encoder import Encoder
from compass_ray.models.model_resolver import model_identity
from compass_ray.monitoring.cluster_assigner import load_prompt_assigner

WORDS = {
    "sw": (
        "habari yako leo nini jina mji mkuu wa nchi hii ni gani",
        "sarafu lugha watu siku asante sana karibu chakula maji bahari mlima",
    ),
    "de": (
        "hallo wie geht es dir heute was ist die hauptstadt",
        "welche sprache sprechen menschen danke wasser berg brot meer insel",
    ),
}
"""Two topics of each language."""
_LABELS = {"sw": "swh_Latn", "de": "deu_Latn"}
_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def prompt(language: str, seed: int, topic: int = 0) -> str:
    """Eight words of a topic of a language."""
    return " ".join(random.Random(f"{language}-{topic}-{seed}").choices(WORDS[language][topic].split(), k=8))


def make(folder: Path) -> tuple[RunDir, RunConfig]:
    """The run, with ``v0001`` of two languages and ``v0002`` and ``target`` of one; nothing is live yet."""
    _base(folder / "base")
    _encoder(folder / "encoder")
    _identifier(folder / "identifier")
    config = parse_config(
        {
            "languages": ["sw", "de"],
            "train": {"base_model": str(folder / "base")},
            "embed": {"encoder": str(folder / "encoder")},
            "cluster": {"method": "kmeans", "n_clusters": [4], "pca_dims": None},
            "identifier": {"model": str(folder / "identifier")},
            "serve": {"max_tokens": 8, "max_prompt_tokens": 200},
            "drift": {"window": 40, "check_every": 10, "cooldown": 40, "permutations": 200, "share_per_key": 1.0},
            "resources": {"replica_cpus": 0.1},
        }
    )
    run = RunDir(str(folder / "run"))
    run.write_config(config)
    _clusters(run, config)
    for number, (language, version) in enumerate([("sw", "v0001"), ("sw", "v0002"), ("sw", "target"), ("de", "v0001")]):
        _adapter(run, config, language, version, seed=number)
    return run, config


def _base(folder: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<eos>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    fast.chat_template = _TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
    }
    Qwen2ForCausalLM(Qwen2Config(**shape)).save_pretrained(folder)


def _adapter(run: RunDir, config: RunConfig, language: str, version: str, *, seed: int) -> None:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(config.train.base_model)
    shape = LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=["q_proj", "v_proj", "up_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(model, shape)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=0.5)
    settings = {"base_model": model_identity(config.train.base_model, None), "seed": seed}
    writer = run.adapter(language, version).begin(Identity("train", settings, {}))
    writer.write_folder(lambda folder: adapted.save_pretrained(str(folder)))
    counts = _guide_counts(run, config, language)
    writer.write_json("reference.json", {"guide_counts": counts, "selected_counts": counts, "trained_counts": counts})
    writer.publish()


def _identifier(folder: Path) -> None:
    folder.mkdir(parents=True)
    # In turns: fastText reads the lines in order, and a block of one language at the end outweighs the others.
    lines = [f"__label__{_LABELS[code]} {prompt(code, seed, seed % 2)}" for seed in range(400) for code in WORDS]
    text = folder / "train.txt"
    text.write_text("\n".join(lines), "utf-8")
    # Ten threads: each sets up a tenth of the vectors, and what fewer of them leave out is whatever memory held.
    trained = fasttext.train_supervised(str(text), dim=10, epoch=30, lr=0.1, thread=10, verbose=0, bucket=1000)
    trained.save_model(str(folder / "model.bin"))


def _encoder(folder: Path) -> None:
    words = sorted({word for topics in WORDS.values() for topic in topics for word in topic.split()})
    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    bert = folder.with_name("bert")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(bert)
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=64,
    )
    model = BertModel(shape)
    # As wide as they are after training: at the usual start every word lies at the same place.
    torch.nn.init.normal_(model.embeddings.word_embeddings.weight, std=1.0)
    model.save_pretrained(bert)
    words_in = Transformer(str(bert))
    SentenceTransformer(modules=[words_in, Pooling(16, "mean")]).save(str(folder))


def _clusters(run: RunDir, config: RunConfig) -> None:
    prompts = [prompt(code, seed, topic) for code in WORDS for topic in (0, 1) for seed in range(100)]
    fitted = fit_clusters(config.cluster, Encoder(config.embed).encode(prompts, batch_size=64), seed=0)
    writer = run.clusters.begin(Identity("cluster", {}, {}))
    writer.write_folder(fitted.clusterer.save)
    writer.write_array("coarse.npy", fitted.coarse)
    writer.publish()


def _guide_counts(run: RunDir, config: RunConfig, language: str) -> list[int]:
    coarse = load_prompt_assigner(run, config).assign([prompt(language, seed) for seed in range(100)]).coarse
    return cluster_counts(coarse, int(run.clusters.read_array("coarse.npy").max()) + 1).tolist()
