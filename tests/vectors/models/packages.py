"""Models of timm, diffusers, sentence-transformers and OpenAI's Whisper: made, called and saved as their packages do."""

import importlib
import inspect
import json
import pathlib
import re

import torch

import build
import inputs

RECIPES = json.loads((pathlib.Path(__file__).parent / "recipes.json").read_text())
_SMALL = ("test_", "atto", "nano", "xxs", "tiny", "xs", "mini", "small")


def cases():
    """[{name, type, class, package}]. Imports what all models of a package share, once for all processes."""
    for shared in ("diffusers.models.transformers", "sentence_transformers", "timm", "whisper.model"):
        importlib.import_module(shared)
    found = [("diffusers", name) for name in RECIPES["diffusers"]] + [
        ("sentence-transformers", name) for name in RECIPES["sentence-transformers"]
    ]
    found += [("timm", name) for name in _timm_names()] + [("whisper", "Whisper")]
    return [{"name": f"{package}.{name}", "type": f"{package}/{name}", "class": name, "package": package} for package, name in found]


def _timm_names():
    """The smallest variant by its name of each module of timm's models that mentions attention."""
    import timm

    names = []
    for module in timm.list_modules():
        source = inspect.getsource(__import__(f"timm.models.{module}", fromlist=["x"]))
        models = timm.list_models(module=module)
        if models and re.search(r"softmax|scaled_dot_product|Attention", source):
            names.append(
                min(models, key=lambda name: (next((i for i, word in enumerate(_SMALL) if word in name), len(_SMALL)), len(name), name))
            )
    return names


def _given(value, generator):
    if value == "steps":
        return torch.tensor([3, 7])
    if isinstance(value, str):
        return torch.ones([int(size) for size in value.split()[1:]], dtype=torch.float64)
    return torch.randn(value, generator=generator, dtype=torch.float64)


class Diffusers:
    def supplied(self, path):
        del path

    def __init__(self, name):
        self._recipe, self._name = RECIPES["diffusers"][name], name

    def attempts(self):
        import diffusers

        yield lambda: build.in_double(lambda: getattr(diffusers, self._name)(**self._recipe["config"]))

    def calls(self, model, seed):
        generator = torch.Generator().manual_seed(seed)
        return [("forward", model, {name: _given(value, generator) for name, value in self._recipe["inputs"].items()})]

    def save(self, model, directory):
        model.save_pretrained(directory)
        return "diffusion_pytorch_model.safetensors"


class Timm:
    """The number of heads is what README asks a caller for: timm's config.json does not have it."""

    def __init__(self, name):
        self._name, self._heads = name, {}

    def supplied(self, path):
        return json.dumps({"num_heads": self._heads[path]}) if path in self._heads else None

    def attempts(self):
        import timm

        timm.layers.set_fused_attn(False)
        yield lambda: build.in_double(lambda: timm.create_model(self._name, pretrained=False))

    def calls(self, model, seed):
        size = model.default_cfg.get("test_input_size") or model.default_cfg["input_size"]
        picture = torch.randn(1, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self._heads = {
            path: module.num_heads for path, module in model.named_modules() if isinstance(getattr(module, "num_heads", None), int)
        }
        return [("forward", model, {next(iter(inspect.signature(model.forward).parameters)): picture})]

    def save(self, model, directory):
        from timm.models._hub import save_for_hf

        save_for_hf(model, directory, safe_serialization=True)
        return "model.safetensors"


class Whisper:
    """OpenAI's own code; neither the number of heads nor that the decoder is causal is in a file that attend reads."""

    def __init__(self, name):
        self._sizes = RECIPES["whisper"][name]

    def supplied(self, path):
        causal = {"options": {"causal": "CAUSAL_MODE_BOTTOM_RIGHT"}} if re.search(r"decoder.*\.attn$", path) else {}
        return json.dumps({"num_heads": self._sizes["n_text_head"]} | causal)

    def attempts(self):
        from whisper.model import ModelDimensions, MultiHeadAttention
        from whisper.model import Whisper as Model

        MultiHeadAttention.use_sdpa = False
        yield lambda: build.in_double(lambda: Model(ModelDimensions(**self._sizes)))

    def calls(self, model, seed):
        generator = torch.Generator().manual_seed(seed)
        sound = torch.randn(2, model.dims.n_mels, 2 * model.dims.n_audio_ctx, generator=generator, dtype=torch.float64)
        return [
            ("forward", model, {"mel": sound, "tokens": torch.randint(0, model.dims.n_vocab, (2, inputs.TARGETS), generator=generator)})
        ]

    def save(self, model, directory):
        from safetensors.torch import save_model

        save_model(model, str(pathlib.Path(directory) / "model.safetensors"))
        return "model.safetensors"


class SentenceTransformers(build.Transformers):
    """What SentenceTransformer.save writes of a model of transformers."""

    def __init__(self, name):
        super().__init__(RECIPES["sentence-transformers"][name], name, None)

    def save(self, model, directory):
        import sentence_transformers as st
        import tokenizers
        import transformers
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

        bare = pathlib.Path(directory) / "bare"
        model.save_pretrained(bare)
        words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "[PAD]": 1}, unk_token="[UNK]"))
        transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(bare)
        modules = Transformer(str(bare)), Pooling(model.config.hidden_size)
        st.SentenceTransformer(modules=modules, device="cpu").save(str(pathlib.Path(directory) / "saved"))
        return "saved/model.safetensors"


_SOURCES = {"diffusers": Diffusers, "timm": Timm, "whisper": Whisper, "sentence-transformers": SentenceTransformers}


def source(package, name):
    return _SOURCES[package](name)
