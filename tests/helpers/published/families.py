"""The matrix: published families, by layout of the head. `seen` says where each definition was read."""

from helpers.published.classifiers import CLASSIFIERS, GRM, ONE
from helpers.published.family import Family
from helpers.published.heads import armorm, athene, beaver, linear, mlp, normalised_by_config, qrm, token_classes, urm, vocabulary
from helpers.published.tokenizers import CLS

_BENCH = "allenai/reward-bench: rewardbench/models/"
_GATED = ONE | {
    "auto_map": {"AutoModelForSequenceClassification": "modeling_custom.LlamaForRewardModelWithGating"},
    "num_objectives": 19,
    "gating_hidden_dim": 24,
    "gating_n_hidden": 3,
}
_GRM_CODE = {
    "auto_map": {
        "AutoModel": "model.AutoModelForCausalLMWithValueHead",
        "AutoModelForSequenceClassification": "model.AutoModelForCausalLMWithValueHead",
    }
}
HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
ARMORM = (
    *(f"helpsteer-{name}" for name in HELPSTEER),
    "ultrafeedback-overall_score",
    "ultrafeedback-instruction_following",
    "ultrafeedback-truthfulness",
    "ultrafeedback-honesty",
    "ultrafeedback-helpfulness",
    "beavertails-is_safe",
    "prometheus-score",
    "argilla-overall_quality",
    "argilla-judge_lm",
    "code-complexity",
    "code-style",
    "code-explanation",
    "code-instruction-following",
    "code-readability",
)


_LINEAR = (
    Family(
        "trl-value-head",
        "what trl.AutoModelForCausalLMWithValueHead saves",
        "huggingface/trl: trl/models/modeling_value_head.py",
        "Qwen2ForCausalLM",
        "qwen2",
        linear("v_head.summary", bias=True),
        lm_head=True,
    ),
    Family(
        "trl-value-head-gpt2",
        "the same of a GPT-2, whose head is tied",
        "huggingface/trl: trl/models/modeling_value_head.py",
        "GPT2LMHeadModel",
        "gpt2",
        linear("v_head.summary", bias=True),
        prefix="transformer.",
    ),
    Family(
        "llama-factory",
        "what LLaMA-Factory saves: the head beside the model",
        "hiyouga/LLaMA-Factory: load_valuehead_params",
        "Qwen2ForCausalLM",
        "qwen2",
        linear("v_head.summary", bias=True),
        lm_head=True,
        head_file="value_head.safetensors",
        shards=2,  # of which the index does not name the head's file
    ),
    Family(
        "grm-sftreg-linear",
        "GRM's sftreg with vhead_layer_type linear",
        _BENCH + "grm.py",
        "LlamaForCausalLM",
        "llama3",
        linear("v_head.summary", bias=True),
        config=_GRM_CODE | GRM | {"vhead_layer_type": "linear"},
        lm_head=True,
    ),
    Family(
        "athene",
        "Nexusflow/Athene-RM-8B, Athene-RM-70B",
        _BENCH + "athene.py",
        "CustomAutoModelForSequenceClassification",
        "llama3",
        athene(),
        vocabulary="llama3",
        suffix=CLS,
    ),
    Family(
        "starling-34b",
        "Nexusflow/Starling-RM-34B",
        _BENCH + "starling.py",
        "LlamaForSequenceClassification",
        "yi",
        linear("v_head"),
        prefix="transformer.",
    ),
    Family(
        "starling-7b",
        "berkeley-nest/Starling-RM-7B-alpha",
        _BENCH + "starling.py (a .bin there; the config is Llama 2's)",
        "LlamaForCausalLM",
        "llama2",
        linear("v_head"),
        prefix="transformer.",
        also="model.model.",
    ),
    Family("ultrarm", "openbmb/UltraRM-13b", _BENCH + "openbmb.py", "LlamaRewardModel", "llama2", linear("regression_head")),
    Family(
        "eurus",
        "openbmb/Eurus-RM-7b",
        "its modeling_eurus_rm.py and config.json",
        "EurusRewardModel",
        "mistral-window",
        linear("regression_head"),
        config={"auto_map": {"AutoModel": "modeling_eurus_rm.EurusRewardModel"}},
    ),
    *(
        Family(
            f"beaver-{kind}{'-normalised' if normalise else ''}{'' if bias else '-no-bias'}",
            f"PKU-Alignment/beaver-7b-v1.0-{kind}",
            _BENCH + "beaver.py",
            "LlamaForScore",
            "llama2",
            beaver(bias=bias),
            config={
                "score_dim": 1,
                "bias": bias,
                "score_type": kind,
                "do_normalize": normalise,
                "normalizer_type": "ExponentialMovingAverage",
                "momentum": 0.9,
                "mean": [0.4],
                "var": [2.2],
            },
        )
        for kind, normalise, bias in (
            ("reward", False, True),
            ("reward", True, True),
            ("reward", False, False),
            ("cost", False, True),
            ("cost", True, True),
        )
    ),
    Family(
        "beaver-reward-normalised-by-config",
        "PKU-Alignment/beaver-7b-v1.0-reward without its buffers",
        _BENCH + "beaver.py",
        "LlamaForScore",
        "llama2",
        beaver(bias=False, buffers=False),
        config={"score_dim": 1, "bias": False, "score_type": "reward", "do_normalize": True, "mean": [0.4], "var": [2.2]},
    ),
    *(
        Family(
            f"openrlhf{'-normalised' if normalise else ''}",
            "what OpenRLHF saves",
            "OpenRLHF/OpenRLHF: openrlhf/models/model.py; the class name from memory",
            "RewardModel",
            "mistral",
            normalised_by_config("value_head"),
            config={"normalize_reward": normalise, "mean": 0.7, "std": 2.5},
        )
        for normalise in (False, True)
    ),
    Family(
        "openrlhf-score-normalised",
        "what OpenRLHF saves since its value_head_prefix is score",
        "OpenRLHF/OpenRLHF: openrlhf/models/model.py; the class name from memory",
        "RewardModel",
        "llama3",
        normalised_by_config("score"),
        config={"normalize_reward": True, "mean": -0.3, "std": 1.5},
    ),
    Family(
        "token-classifier-of-one",
        "CodeScaler, and reward models of volcengine/verl: a token classifier of one class",
        "transformers' *ForTokenClassification; read at the last token: from memory of verl",
        "Qwen3ForTokenClassification",
        "qwen3",
        linear("score", bias=True),
        config=ONE,
    ),
    Family(
        "nemotron-hf",
        "nvidia/Llama-3.1-Nemotron-70B-Reward-HF",
        "its card, as its users quote it: scores[0][0][0]",
        "LlamaForCausalLM",
        "llama3.1",
        vocabulary(0),
        lm_head=True,
        options={"head": "token:0"},
    ),
    Family(
        "judge",
        "a judge that answers yes or no, with tied embeddings",
        "nvidia/Qwen3-Nemotron-32B-GenRM's users: logit of Yes less logit of No",
        "Qwen3ForCausalLM",
        "qwen3-tied",
        vocabulary(89, 78, key="model.embed_tokens.weight"),
        options={"head": "token:89-78"},
    ),
)

_NETS = (
    Family(
        "grm-sftreg",
        "Ray2333/GRM-llama3-8B-sftreg",
        _BENCH + "grm.py; its config.json",
        "LlamaForCausalLM",
        "llama3",
        mlp("v_head.summary.", neurons=24),
        config=_GRM_CODE | GRM,
        lm_head=True,
    ),
    Family(
        "grm-gemma2-sftreg",
        "Ray2333/GRM-Gemma2-2B-sftreg",
        _BENCH + "grm.py",
        "Gemma2ForCausalLM",
        "gemma2",
        mlp("v_head.summary.", neurons=24),
        config=_GRM_CODE | GRM,
    ),
    Family(
        "inf-orm",
        "infly/INF-ORM-Llama3.1-70B",
        _BENCH + "inform.py",
        "INFORMForSequenceClassification",
        "llama3.1",
        mlp("score."),
        config=ONE,
    ),
    Family(
        "qwen-math-rm",
        "Qwen/Qwen2.5-Math-RM-72B",
        "vllm-project/vllm: models/qwen2_rm.py; its config.json",
        "Qwen2ForRewardModel",
        "qwen2",
        mlp("score."),
        config={"auto_map": {"AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig", "AutoModel": "modeling_qwen2_rm.Qwen2ForRewardModel"}},
        lm_head=True,
    ),
    Family(
        "armorm",
        "RLHFlow/ArmoRM-Llama3-8B-v0.1",
        "its modeling_custom.py and config.json",
        "LlamaForRewardModelWithGating",
        "llama3",
        armorm(19, 24, 3),
        config=_GATED | {"gating_temperature": 10},
        names=ARMORM,
        vocabulary="llama3",
        shards=2,
    ),
    Family(
        "qrm",
        "nicolinho/QRM-Llama3.1-8B",
        _BENCH + "qrm.py; its config.json",
        "LlamaForRewardModelWithGating",
        "llama3.1",
        qrm(19, 5, 24, 3),
        config=_GATED | {"num_quantiles": 5, "gating_temperature": 5.0},
        names=ARMORM,
        vocabulary="llama3",
    ),
    Family(
        "urm",
        "LxzGordon/URM-LLaMa-3.1-8B",
        "sgl-project/sglang: models/llama_classification.py; its card",
        "LlamaForSequenceClassificationWithNormal_Weights",
        "llama3.1",
        urm(5),
        config={"id2label": {str(i): f"LABEL_{i}" for i in range(10)}, "label2id": {f"LABEL_{i}": i for i in range(10)}},
        names=HELPSTEER,
    ),
)

_OBJECTIVES = tuple(
    Family(
        f"dpa{'-bias' if bias else ''}",
        "RLHFlow/RewardModel-Mistral-7B-for-DPA-v1",
        "its card and config.json; whether it has a bias is not settled, so both are here",
        "MistralForAttributePrediction",
        "mistral",
        linear("score", bias=bias, outputs=10),
        config={
            "auto_map": {"AutoModelForSequenceClassification": "modeling_custom.MistralForAttributePrediction"},
            "id2label": {str(i): f"LABEL_{i}" for i in range(10)},
            "label2id": {f"LABEL_{i}": i for i in range(10)},
        },
        names=ARMORM[:10],
    )
    for bias in (False, True)
)

PROCESS = (
    Family(
        "qwen-math-prm",
        "Qwen/Qwen2.5-Math-PRM-7B",
        "vllm-project/vllm: models/qwen2_rm.py; its card and config.json",
        "Qwen2ForProcessRewardModel",
        "qwen2",
        mlp("score.", outputs=2),
        config={
            "auto_map": {
                "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
                "AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel",
            }
        },
    ),
    Family(
        "trl-prm",
        "what trl's PRMTrainer saves",
        "trl's documentation; transformers' *ForTokenClassification",
        "Qwen2ForTokenClassification",
        "qwen2",
        token_classes(),
        config={"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}},
    ),
)
# It may be read, or refused for its cap.
CAPPED = Family(
    "judge-capped",
    "a Gemma-2 that answers yes or no",
    "transformers' Gemma2ForCausalLM",
    "Gemma2ForCausalLM",
    "gemma2",
    vocabulary(89, 78, key="model.embed_tokens.weight"),
    options={"head": "token:89-78"},
)
REWARDS = (*CLASSIFIERS, *_LINEAR, *_NETS)  # those with a default reward
SEVERAL = (*(family for family in _NETS if family.names), *_OBJECTIVES)  # those with several outputs
MATRIX = (*REWARDS, *_OBJECTIVES, *PROCESS)
